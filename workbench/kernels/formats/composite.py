"""Formats made of other formats: `masked` (each weight from one child), `sum` (children added); `low-rank` and `zero`."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from workbench.kernels.formats.codebook import compute_index_width
from workbench.kernels.formats.format import (
    Format,
    Shape,
    count_weights,
    declare_span_fact,
    decode,
    linear,
    mask_values,
    recode_nearest,
    unpack_codes,
)
from workbench.kernels.packing import bitpack, n_of_m
from workbench.kernels.packing.packed import Packed
from workbench.kernels.packing.tensor_spec import (
    FactSpec,
    TensorSpec,
    declare_choice,
    declare_code_stream,
    declare_finite_numbers,
    declare_integer,
)
from workbench.registry import register

MOST_CHILDREN = 256
MAX_NEIGHBOURS = 16  # neighbours of which some are chosen


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

    maskable: ClassVar = True
    children: ClassVar = (1, MOST_CHILDREN)
    items: ClassVar = {"map": "which coder owns which weight"}

    @classmethod
    def facts(cls, packed: Packed) -> Iterator[tuple[str, FactSpec]]:
        """See `Format`."""
        yield "map", declare_choice("bitmap", "columns", "groups", "n-of-m")
        if packed.facts["map"] == "groups":
            yield declare_span_fact(packed)
        if packed.facts["map"] == "n-of-m":
            yield "m", declare_integer(1, MAX_NEIGHBOURS)
            yield "n", declare_integer(1, packed.facts["m"])

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """See `Format`."""
        yield "map", _declare_map_stream(packed, mask)

    @classmethod
    def parts(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[Shape, Tensor | None]]:
        """See `Format`."""
        for child_mask in _iterate_child_masks(packed, mask):
            yield (packed.rows, packed.cols), child_mask

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """Each child's values at its own positions."""
        value = torch.zeros(packed.rows, packed.cols, device=packed.tensors["map"].device)
        for child, child_mask in zip(packed.children, _iterate_child_masks(packed, mask), strict=True):
            value += decode(child, child_mask)
        return value

    @classmethod
    def nearest(cls, packed: Packed, target: Tensor, mask: Tensor | None = None) -> Packed:
        """Each child's nearest codes at its own positions; who owns what stays."""
        masks = _iterate_child_masks(packed, mask)
        return replace(packed, children=tuple(recode_nearest(c, target, m) for c, m in zip(packed.children, masks, strict=True)))


def _iterate_child_masks(packed: Packed, mask: Tensor | None) -> Iterator[Tensor]:
    """The weights that each child owns, bool `[rows, cols]`."""
    owner = unpack_owners(packed, mask)
    for number in range(len(packed.children)):
        yield owner == number if mask is None else (owner == number) & mask


def _declare_map_stream(packed: Packed, mask: Tensor | None) -> TensorSpec:
    """The tensor `map`: numbers of children, one a weight, column or group, or of choices of neighbours."""
    rows, cols, children = packed.rows, packed.cols, len(packed.children)
    if packed.facts["map"] == "n-of-m":
        n, m = packed.facts["n"], packed.facts["m"]
        return declare_code_stream(rows * -(-cols // m), n_of_m.compute_choice_width(n, m), math.comb(m, n))
    counts = {"bitmap": count_weights(packed, mask), "columns": cols, "groups": rows * -(-cols // packed.facts.get("span", 1))}
    return declare_code_stream(counts[packed.facts["map"]], compute_index_width(children), children)


def unpack_owners(packed: Packed, mask: Tensor | None = None) -> Tensor:
    """The number of the child that owns each weight, int32 `[rows, cols]`."""
    if packed.facts["map"] == "n-of-m":
        n, m = packed.facts["n"], packed.facts["m"]
        return n_of_m.unpack(packed.tensors["map"], n, m, packed.rows, packed.cols).to(torch.int32)
    width = compute_index_width(len(packed.children))
    if packed.facts["map"] == "bitmap":
        return unpack_codes(packed, "map", width, mask)[0]
    if packed.facts["map"] == "groups":
        span = packed.facts["span"]
        groups = -(-packed.cols // span)
        flags = bitpack.unpack(packed.tensors["map"], width, packed.rows * groups).view(packed.rows, groups)
        return flags.repeat_interleave(span, 1)[:, : packed.cols]
    return bitpack.unpack(packed.tensors["map"], width, packed.cols).expand(packed.rows, packed.cols)


@register("format", "zero")
class Zero(Format):
    """All weights are zero; nothing is stored."""

    maskable: ClassVar = True
    items: ClassVar = {}

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """Zeros."""
        return torch.zeros(packed.rows, packed.cols, device=None if mask is None else mask.device)


@register("format", "sum")
class Sum(Format):
    """All children added; nothing is stored beside them."""

    maskable: ClassVar = True
    children: ClassVar = (1, MOST_CHILDREN)
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
            children[number] = recode_nearest(child, target - others, mask)
        return replace(packed, children=tuple(children))


@register("format", "low-rank")
class LowRank(Format):
    """left · right. Tensors `left [rows, r]` and `right [r, cols]`, fp16."""

    maskable: ClassVar = True
    items: ClassVar = {"left": "column factors of the correction", "right": "row factors of the correction"}

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """See `Format`."""
        yield "left", declare_finite_numbers(packed.rows, None)
        yield "right", declare_finite_numbers(packed.tensors["left"].shape[1], packed.cols)

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """left · right in float32."""
        return mask_values(mask, packed.tensors["left"].to(torch.float32) @ packed.tensors["right"].to(torch.float32))

    @classmethod
    def linear(cls, x: Tensor, packed: Packed) -> Tensor:
        """(x rightᵀ) leftᵀ."""
        return (x @ packed.tensors["right"].to(x.dtype).mT) @ packed.tensors["left"].to(x.dtype).mT
