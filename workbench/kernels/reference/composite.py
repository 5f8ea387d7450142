"""Formats made of other formats: `masked` (each weight from one child), `sum` (children added); `low-rank` and `zero`."""

from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from workbench.kernels import bitpack, selection
from workbench.kernels.packed import Packed
from workbench.kernels.reference.codebook import index_width
from workbench.kernels.reference.format import Format, codes, decode, linear, nearest, only
from workbench.registry import register


@register("format", "masked")
class Masked(Format):
    """Every weight comes from one child, and each child stores only its own weights.

    Fact `map`, and what the tensor `map` then holds as a bit stream:
      "bitmap"   the child's number for each weight, max(1, ceil(log2 children)) bits, `[rows, cols]`
      "columns"  the same for each column, `[cols]`
      "groups"   the same for each group of `span` columns (a fact) of a row, `[rows, ceil(cols/span)]`
      "n-of-m"   facts `n` and `m`: the second child owns n of every m neighbouring columns of a row; which ones is a number of
                 ceil(log2 C(m, n)) bits, `[rows, ceil(cols/m)]`
    A bitmap inside another mask is stored only at that mask's own weights.
    """

    items: ClassVar = {"map": "which coder owns which weight"}

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """Each child's values at its own positions."""
        value = torch.zeros(packed.rows, packed.cols, device=packed.tensors["map"].device)
        owner = owners(packed, mask)
        for number, child in enumerate(packed.children):
            own = owner == number if mask is None else (owner == number) & mask
            value += decode(child, own)
        return value

    @classmethod
    def nearest(cls, packed: Packed, target: Tensor, mask: Tensor | None = None) -> Packed:
        """Each child's nearest codes at its own positions; who owns what stays."""
        owner = owners(packed, mask)
        own = [owner == number if mask is None else (owner == number) & mask for number in range(len(packed.children))]
        return replace(packed, children=tuple(nearest(c, target, m) for c, m in zip(packed.children, own, strict=True)))


def owners(packed: Packed, mask: Tensor | None = None) -> Tensor:
    """The number of the child that owns each weight, int32 `[rows, cols]`."""
    if packed.facts["map"] == "n-of-m":
        n, m = packed.facts["n"], packed.facts["m"]
        return selection.unpack(packed.tensors["map"], n, m, packed.rows, packed.cols).to(torch.int32)
    width = index_width(len(packed.children))
    if packed.facts["map"] == "bitmap":
        return codes(packed, "map", width, mask)[0]
    if packed.facts["map"] == "groups":
        span = packed.facts["span"]
        groups = -(-packed.cols // span)
        flags = bitpack.unpack(packed.tensors["map"], width, packed.rows * groups).view(packed.rows, groups)
        return flags.repeat_interleave(span, 1)[:, : packed.cols]
    return bitpack.unpack(packed.tensors["map"], width, packed.cols).expand(packed.rows, packed.cols)


@register("format", "zero")
class Zero(Format):
    """All weights are zero; nothing is stored."""

    items: ClassVar = {}

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """Zeros."""
        return torch.zeros(packed.rows, packed.cols, device=None if mask is None else mask.device)


@register("format", "sum")
class Sum(Format):
    """All children added; nothing is stored beside them."""

    items: ClassVar = {}

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """The sum of the children's matrices."""
        first, *others = packed.children
        value = decode(first, mask)
        for child in others:
            value = value + decode(child, mask)
        return value

    @classmethod
    def linear(cls, x: Tensor, packed: Packed) -> Tensor:
        """The sum of the children's products, so that a low-rank child stays two thin products."""
        first, *others = packed.children
        y = linear(x, first)
        for child in others:
            y = y + linear(x, child)
        return y

    @classmethod
    def nearest(cls, packed: Packed, target: Tensor, mask: Tensor | None = None) -> Packed:
        """Child by child, each for what the others leave."""
        children = list(packed.children)
        for number, child in enumerate(children):
            others = sum(decode(other, mask) for other in children[:number] + children[number + 1 :])
            children[number] = nearest(child, target - others, mask)
        return replace(packed, children=tuple(children))


@register("format", "low-rank")
class LowRank(Format):
    """left · right. Tensors `left [rows, r]` and `right [r, cols]`, fp16."""

    items: ClassVar = {"left": "column factors of the correction", "right": "row factors of the correction"}

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """left · right in float32."""
        return only(mask, packed.tensors["left"].to(torch.float32) @ packed.tensors["right"].to(torch.float32))

    @classmethod
    def linear(cls, x: Tensor, packed: Packed) -> Tensor:
        """(x rightᵀ) leftᵀ."""
        return (x @ packed.tensors["right"].to(x.dtype).mT) @ packed.tensors["left"].to(x.dtype).mT
