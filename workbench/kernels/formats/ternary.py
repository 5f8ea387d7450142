"""Format `ternary`: a sum of trit matrices (−1, 0, +1), each with its own scales; one of them is a ternary matrix."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from workbench.kernels.formats.format import Format, count_groups, count_weights, declare_span_fact, expand_groups
from workbench.kernels.packing import tritpack
from workbench.kernels.packing.packed import Packed
from workbench.kernels.packing.tensor_spec import (
    FactSpec,
    TensorSpec,
    declare_finite_numbers,
    declare_integer,
    declare_trit_stream,
)
from workbench.registry import register

MAX_TERNARY_PLANES = 8  # planes


@register("format", "ternary")
class Ternary(Format):
    """value = Σ_p scale_p · trit_p, planes added in order.

    Facts: `planes`, `span` columns a group. Tensors: `trits` (five to a byte, `[planes, rows, cols]`), `scale` fp16
    `[planes, rows, groups]`.
    """

    maskable: ClassVar = True
    items: ClassVar = {
        "trits": "1.6 bits a weight and plane: five trits to a byte",
        "scale": "magnitude, one a row, group and plane",
    }

    @classmethod
    def facts(cls, packed: Packed) -> Iterator[tuple[str, FactSpec]]:
        """See `Format`."""
        yield "planes", declare_integer(1, MAX_TERNARY_PLANES)
        yield declare_span_fact(packed)

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """See `Format`."""
        planes = packed.facts["planes"]
        yield "trits", declare_trit_stream(planes * count_weights(packed, mask))
        yield "scale", declare_finite_numbers(planes, packed.rows, count_groups(packed))

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """Σ_p scale_p · trit_p."""
        value = torch.zeros(packed.rows, packed.cols, device=packed.tensors["scale"].device)
        for plane, size in zip(unpack_trits(packed, mask), _expand_scales(packed), strict=True):
            value += plane * size
        return value

    @classmethod
    def nearest(cls, packed: Packed, target: Tensor, mask: Tensor | None = None) -> Packed:
        """Of all sums of trits the nearest one, weight by weight."""
        new_trits = choose_nearest_trits(target, _expand_scales(packed))
        masked = new_trits if mask is None else new_trits[:, mask]
        return replace(packed, tensors={**packed.tensors, "trits": tritpack.pack(masked)})


def unpack_trits(packed: Packed, mask: Tensor | None = None) -> Tensor:
    """The stored trits, int8 `[planes, rows, cols]`; 0 outside the mask."""
    shape = (packed.facts["planes"], packed.rows, packed.cols)
    stream = packed.tensors["trits"]
    if mask is None:
        return tritpack.unpack(stream, shape[0] * packed.rows * packed.cols).view(shape)
    full = torch.zeros(shape, dtype=torch.int8, device=stream.device)
    full[mask.expand(shape)] = tritpack.unpack(stream, shape[0] * int(mask.sum()))
    return full


def _expand_scales(packed: Packed) -> Tensor:
    """The scales, float32 `[planes, rows, cols]`."""
    return expand_groups(packed.tensors["scale"], packed.facts["span"], packed.cols)


def choose_nearest_trits(target: Tensor, size: Tensor) -> Tensor:
    """The trits whose sum comes nearest to `target [rows, cols]`, int8 `[planes, rows, cols]`.

    `size [planes, rows, cols or 1]`. Where two sums are equally near, the one with more zeros.
    """
    best = torch.full_like(target, torch.inf)
    trits = torch.zeros((len(size), *target.shape), dtype=torch.int8, device=target.device)
    for choice in sorted(itertools.product((0, 1, -1), repeat=len(size)), key=lambda choice: sum(map(abs, choice))):
        distance = (target - sum(trit * plane_size for trit, plane_size in zip(choice, size, strict=True))).abs()
        closer = distance < best
        best = torch.where(closer, distance, best)
        trits = torch.where(closer, torch.tensor(choice, dtype=torch.int8, device=target.device).view(-1, 1, 1), trits)
    return trits
