"""Scheme `rotated`: a random rotation makes a token's values nearly normal, and Lloyd–Max levels code them."""

import math
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor

from workbench.kernels.formats.transforms import hadamard
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.quantizers.coders.fitting.column_groups import compute_group_span
from workbench.quantizers.kv.scheme import Scheme
from workbench.quantizers.storage_rounding import round_to_fp16
from workbench.recipe import setting
from workbench.registry import register
from workbench.seeds import LARGEST_SEED

SETTLED = 1e-10


@register("kv", "rotated")
@dataclass(frozen=True)
class Rotated(Scheme):
    """Signs drawn by `seed` and a Hadamard transform over all channels, then 2^bits levels and one fp16 size for each token.

    Signs and levels are the same for all blocks and layers: they are stored once.
    """

    source: ClassVar[str] = "TurboQuant without its residual sketch (arXiv 2504.19874); Lloyd 1982 and Max 1960 for the levels"
    note: ClassVar[str] = "A Hadamard transform replaces the dense random rotation; the scale is refitted to the codes."
    bits: int = setting(2, "bits per code", choices=(1, 2, 3, 4, 5, 6, 7, 8))
    group: int = setting(0, "channels that share a scale; 0 is all heads of a token", low=0, high=65536)
    seed: int = setting(0, "random seed of the signs", low=0, high=LARGEST_SEED)

    def pack(self, keys: Tensor, values: Tensor, saliency: Tensor) -> tuple[Packed, Packed]:
        """Both alike."""
        return self.spread(keys), self.spread(values)

    def spread(self, x: Tensor) -> Packed:
        """`x [tokens, channels]`, rotated and coded."""
        rows, cols = x.shape
        signs = torch.randint(2, (cols,), generator=torch.Generator().manual_seed(self.seed)).float() * 2 - 1
        levels, span = compute_normal_levels(self.bits), compute_group_span(self.group, cols)
        groups = [_quantize_rows(piece, levels) for piece in hadamard(x, signs).split(span, 1)]
        tensors = {
            "index": bitpack.pack(torch.cat([codes for codes, _ in groups], 1), self.bits),
            "codebook": levels.half()[:, None],
            "scale": torch.stack([size for _, size in groups], 1).half(),
        }
        facts = {"length": 1, "entries": len(levels), "span": span}
        inner = Packed("vector-codebook", rows, cols, tensors, facts, shared={"codebook": ("levels", 1)})
        return Packed(
            "hadamard", rows, cols, {"signs": bitpack.pack(signs > 0, 1)}, children=(inner,), shared={"signs": ("signs", 1)}
        )

    @property
    def nominal_bits(self) -> float:
        """Bits of a code."""
        return float(self.bits)


def _quantize_rows(x: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Codes `[rows, cols]` of the levels nearest to a row over its size, and the size `[rows]` that fits these codes best."""
    size = x.square().mean(1, keepdim=True).sqrt().clamp(min=1e-8)
    codes = torch.bucketize(x / size, (levels[1:] + levels[:-1]) / 2)
    values = levels[codes]
    return codes, round_to_fp16((x * values).sum(1) / values.square().sum(1).clamp(min=1e-8))


@cache
def compute_normal_levels(bits: int) -> Tensor:
    """The 2^bits levels with the least squared error for a standard normal value, rounded to fp16, ascending `[2^bits]`.

    Each level is the mean of its cell, each edge lies half way between two levels.
    """
    normal = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64))
    levels = normal.icdf((torch.arange(1 << bits, dtype=torch.float64) + 0.5) / (1 << bits))
    ends = torch.tensor([math.inf], dtype=torch.float64)
    while True:
        edges = torch.cat([-ends, (levels[1:] + levels[:-1]) / 2, ends])
        density, below = torch.exp(-edges.square() / 2) / math.sqrt(2 * math.pi), normal.cdf(edges)
        better = (density[:-1] - density[1:]) / (below[1:] - below[:-1])
        if (better - levels).abs().max() < SETTLED:
            return round_to_fp16(better.float())
        levels = better
