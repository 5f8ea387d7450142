"""Formats of single numbers: `dense` keeps the weights as they are, `uniform` stores integer codes on a regular grid."""

from typing import ClassVar

import torch
from torch import Tensor

from workbench.kernels import bitpack
from workbench.kernels.packed import Packed
from workbench.kernels.reference.format import Format, codes, only, over_columns, with_codes
from workbench.registry import register


@register("format", "dense")
class Dense(Format):
    """Tensor `weight` in any floating type: `[rows, cols]`, or inside a mask only its own weights in row order, `[n]`."""

    items: ClassVar = {"weight": "the weights, unchanged"}

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
    `zero` (stream of `bits`, `[rows, groups]`; absent for a symmetric grid, where zero = 2^(bits−1)).
    """

    items: ClassVar = {
        "codes": "one integer a weight",
        "scale": "step of the grid, one a group",
        "zero": "code that stands for 0, one a group",
    }

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """scale · (code − zero)."""
        bits, span = packed.facts["bits"], packed.facts["span"]
        scale = packed.tensors["scale"]
        code = codes(packed, "codes", bits, mask)[0].to(torch.float32)
        if "zero" in packed.tensors:
            zeros = bitpack.unpack(packed.tensors["zero"], bits, scale.numel()).view_as(scale)
            code -= over_columns(zeros, span, packed.cols)
        else:
            code -= 1 << (bits - 1)
        return only(mask, code.mul_(over_columns(scale, span, packed.cols)))

    @classmethod
    def nearest(cls, packed: Packed, target: Tensor, mask: Tensor | None = None) -> Packed:
        """The nearest point of the grid."""
        bits, span = packed.facts["bits"], packed.facts["span"]
        scale, zero = packed.tensors["scale"], torch.tensor(1 << (bits - 1))
        if "zero" in packed.tensors:
            zeros = bitpack.unpack(packed.tensors["zero"], bits, scale.numel()).view_as(scale)
            zero = over_columns(zeros, span, packed.cols)
        step = over_columns(scale, span, packed.cols)
        code = torch.round(target / torch.where(step == 0, 1.0, step) + zero).clamp(0, (1 << bits) - 1)
        return with_codes(packed, "codes", code.to(torch.uint8), bits, mask)
