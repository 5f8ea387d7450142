"""Format `planes`: a sum of sign matrices, each with its own scales (binary, residual binary, binary coding)."""

import itertools
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from workbench.kernels.formats.format import (
    Format,
    count_groups,
    count_weights,
    declare_span_fact,
    expand_groups,
    mask_values,
    replace_codes,
    unpack_codes,
)
from workbench.kernels.packing.packed import Packed
from workbench.kernels.packing.tensor_spec import (
    FactSpec,
    TensorSpec,
    declare_code_stream,
    declare_finite_numbers,
    declare_integer,
)
from workbench.registry import register

MAX_SIGN_PLANES = 16  # planes


@register("format", "planes")
class Planes(Format):
    """value = Σ_p scale_p · column_scale_p · sign_p + mean, planes added in order, the mean last.

    Facts: `planes`, `span` columns a group. Tensors: `signs` (stream of 1 bit, `[planes, rows, cols]`, 1 is +1 and 0 is −1),
    `scale` fp16 `[planes, rows, groups]`, optional `column_scale` fp16 `[planes, cols]`, optional `mean` fp16 `[rows, groups]`.
    """

    maskable: ClassVar = True
    items: ClassVar = {
        "signs": "one bit a weight and plane",
        "scale": "magnitude, one a row, group and plane",
        "column_scale": "magnitude, one a column and plane",
        "mean": "offset, one a row and group",
    }

    @classmethod
    def facts(cls, packed: Packed) -> Iterator[tuple[str, FactSpec]]:
        """See `Format`."""
        yield "planes", declare_integer(1, MAX_SIGN_PLANES)
        yield declare_span_fact(packed)

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """See `Format`."""
        planes, groups = packed.facts["planes"], count_groups(packed)
        yield "signs", declare_code_stream(planes * count_weights(packed, mask), 1)
        yield "scale", declare_finite_numbers(planes, packed.rows, groups)
        yield "column_scale", declare_finite_numbers(planes, packed.cols, optional=True)
        yield "mean", declare_finite_numbers(packed.rows, groups, optional=True)

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """Σ_p scale_p · column_scale_p · sign_p + mean."""
        positive = unpack_codes(packed, "signs", 1, mask, packed.facts["planes"])
        sizes = compute_magnitudes(packed)
        value = torch.zeros(packed.rows, packed.cols, device=sizes.device)
        for plane, size in zip(positive, sizes, strict=True):
            value += torch.where(plane == 1, size, -size)
        if "mean" in packed.tensors:
            value += expand_groups(packed.tensors["mean"], packed.facts["span"], packed.cols)
        return mask_values(mask, value)

    @classmethod
    def nearest(cls, packed: Packed, target: Tensor, mask: Tensor | None = None) -> Packed:
        """Of all sums of signs the nearest one, weight by weight; the more positive one where two are equally near."""
        if "mean" in packed.tensors:
            target = target - expand_groups(packed.tensors["mean"], packed.facts["span"], packed.cols)
        sizes = compute_magnitudes(packed)
        best = torch.full_like(target, torch.inf)
        signs = torch.zeros(sizes.shape, dtype=torch.bool, device=target.device)
        for choice in itertools.product((True, False), repeat=len(sizes)):
            distance = (target - sum(size if plus else -size for plus, size in zip(choice, sizes, strict=True))).abs()
            closer = distance < best
            best = torch.where(closer, distance, best)
            signs = torch.where(closer, torch.tensor(choice, device=target.device).view(-1, 1, 1), signs)
        return replace_codes(packed, "signs", signs, 1, mask)


def compute_magnitudes(packed: Packed) -> Tensor:
    """scale · column_scale, float32 `[planes, rows, cols]`."""
    scale = expand_groups(packed.tensors["scale"], packed.facts["span"], packed.cols).expand(-1, packed.rows, -1)
    return scale * packed.tensors["column_scale"].to(torch.float32)[:, None] if "column_scale" in packed.tensors else scale
