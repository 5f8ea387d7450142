"""Formats of single numbers: `dense` keeps the weights as they are, `uniform` stores integer codes on a regular grid."""

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
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.kernels.packing.tensor_spec import (
    FLOATS,
    FactSpec,
    TensorSpec,
    declare_code_stream,
    declare_finite_numbers,
    declare_integer,
)
from workbench.registry import register


@register("format", "dense")
class Dense(Format):
    """Tensor `weight` in any floating type: `[rows, cols]`, or inside a mask only its own weights in row order, `[n]`."""

    maskable: ClassVar = True
    items: ClassVar = {"weight": "the weights, unchanged"}

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """See `Format`."""
        shape = (packed.rows, packed.cols) if mask is None else (count_weights(packed, mask),)
        yield "weight", declare_finite_numbers(*shape, dtypes=FLOATS)

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """The weights, widened to float32."""
        weight = packed.tensors["weight"].to(torch.float32)
        if mask is None:
            return weight
        full = torch.zeros(packed.rows, packed.cols, device=weight.device)
        full[mask] = weight
        return full


@register("format", "uniform")
class Uniform(Format):
    """value = scale · (code − zero), one scale and zero for each row and group of columns.

    Facts: `bits` a code, `span` columns a group. Tensors: `codes` (stream of `bits`), `scale` fp16 `[rows, groups]`,
    `zero` (stream of `bits`, `[rows, groups]`), or in its place `offset` fp16 `[rows, groups]`, which need not be a whole number;
    without either the grid is symmetric, zero = 2^(bits−1).
    """

    maskable: ClassVar = True
    items: ClassVar = {
        "codes": "one integer a weight",
        "scale": "step of the grid, one a group",
        "zero": "code that stands for 0, one a group",
        "offset": "number that stands for 0 among the codes, one a group",
    }

    @classmethod
    def facts(cls, packed: Packed) -> Iterator[tuple[str, FactSpec]]:
        """See `Format`."""
        yield "bits", declare_integer(1, 8)
        yield declare_span_fact(packed)

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """See `Format`."""
        bits, groups = packed.facts["bits"], count_groups(packed)
        yield "codes", declare_code_stream(count_weights(packed, mask), bits)
        yield "scale", declare_finite_numbers(packed.rows, groups)
        yield "zero", declare_code_stream(packed.rows * groups, bits, optional=True)
        yield "offset", declare_finite_numbers(packed.rows, groups, optional=True)

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """scale · (code − zero)."""
        bits, span = packed.facts["bits"], packed.facts["span"]
        scale = packed.tensors["scale"]
        code = unpack_codes(packed, "codes", bits, mask)[0].to(torch.float32)
        code -= cls.zeros(packed)
        return mask_values(mask, code.mul_(expand_groups(scale, span, packed.cols)))

    @classmethod
    def zeros(cls, packed: Packed) -> Tensor:
        """What is taken off each code: `[rows, cols]`, or one number for all."""
        bits, span, scale = packed.facts["bits"], packed.facts["span"], packed.tensors["scale"]
        if "offset" in packed.tensors:
            return expand_groups(packed.tensors["offset"], span, packed.cols)
        if "zero" in packed.tensors:
            zeros = bitpack.unpack(packed.tensors["zero"], bits, scale.numel()).view_as(scale)
            return expand_groups(zeros, span, packed.cols)
        return torch.tensor(1 << (bits - 1))

    @classmethod
    def nearest(cls, packed: Packed, target: Tensor, mask: Tensor | None = None) -> Packed:
        """The nearest point of the grid."""
        bits, span = packed.facts["bits"], packed.facts["span"]
        step = expand_groups(packed.tensors["scale"], span, packed.cols)
        code = torch.round(target / torch.where(step == 0, 1.0, step) + cls.zeros(packed)).clamp(0, (1 << bits) - 1)
        return replace_codes(packed, "codes", code.to(torch.uint8), bits, mask)
