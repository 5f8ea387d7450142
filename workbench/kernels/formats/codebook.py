"""Formats `binary-codebook` (of signs, as in BTC-LLM, arXiv 2506.12040) and `vector-codebook` (of numbers): an index a vector."""

import math
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from workbench.errors import ShapeError
from workbench.kernels.formats.format import Format, count_groups, declare_span_fact, expand_groups, replace_codes
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.kernels.packing.tensor_spec import (
    FactSpec,
    TensorSpec,
    declare_code_stream,
    declare_finite_numbers,
    declare_integer,
)
from workbench.kernels.search.codeword_search import encode_signs, find_nearest_by_magnitude
from workbench.registry import register

VECTORS_AT_ONCE = 1 << 14  # vectors compared with all codewords at a time
MOST_ENTRIES = 1 << 16
LONGEST_SIGNS, LONGEST_NUMBERS = 24, 64  # weights that a codeword stands for


def compute_index_width(entries: int) -> int:
    """Bits of an index into `entries` codewords: ceil(log2 entries), at least 1."""
    return max(1, math.ceil(math.log2(entries)))


@register("format", "binary-codebook")
class BinaryCodebook(Format):
    """value = scale · column_scale · C[index] + mean; every index stands for `length` neighbouring signs of a row.

    Facts: `length` v, `entries` c, `span` columns a group. Tensors: `index` (stream of max(1, ceil(log2 c)) bits,
    `[rows, ceil(cols/v)]`), `codebook` (stream of 1 bit, `[c, v]`, 1 is +1; usually shared), `scale` fp16 `[rows, groups]`,
    optional `column_scale` fp16 `[cols]`, optional `mean` fp16 `[rows, groups]`. Signs past the last column are ignored.
    """

    items: ClassVar = {
        "index": "which codeword, one a vector of signs",
        "codebook": "the codewords",
        "scale": "magnitude, one a row and group",
        "column_scale": "magnitude, one a column",
        "mean": "offset, one a row and group",
    }

    @classmethod
    def facts(cls, packed: Packed) -> Iterator[tuple[str, FactSpec]]:
        """See `Format`."""
        return _declare_codebook_facts(packed, LONGEST_SIGNS)

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """See `Format`."""
        yield "index", _declare_index_stream(packed)
        yield "codebook", declare_code_stream(packed.facts["entries"] * packed.facts["length"], 1)
        yield from declare_scale_tensors(packed)

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """scale · column_scale · C[index] + mean."""
        check_unmasked(packed, mask)
        value = compute_magnitudes(packed) * decode_signs(packed)
        if "mean" in packed.tensors:
            value += expand_groups(packed.tensors["mean"], packed.facts["span"], packed.cols)
        return value

    @classmethod
    def nearest(cls, packed: Packed, target: Tensor, mask: Tensor | None = None) -> Packed:
        """The codeword that leaves the least squared error, for every vector."""
        check_unmasked(packed, mask)
        length, entries = packed.facts["length"], packed.facts["entries"]
        if "mean" in packed.tensors:
            target = target - expand_groups(packed.tensors["mean"], packed.facts["span"], packed.cols)
        pull = torch.nn.functional.pad(compute_magnitudes(packed) * target, (0, -packed.cols % length)).view(-1, length)
        index = find_nearest_by_magnitude(pull, encode_signs(unpack_codewords(packed)))[0]
        return replace_codes(packed, "index", index, compute_index_width(entries), None)


@register("format", "vector-codebook")
class VectorCodebook(Format):
    """value = scale · C[index]; every index stands for `length` neighbouring weights of a row.

    Facts: `length` v, `entries` c, `span` columns a group. Tensors: `index` as in `binary-codebook`, `codebook` fp16 `[c, v]`
    (usually shared), `scale` fp16 `[rows, groups]`. Weights past the last column are ignored.
    """

    items: ClassVar = {
        "index": "which codeword, one a vector of weights",
        "codebook": "the codewords",
        "scale": "magnitude, one a row and group",
    }

    @classmethod
    def facts(cls, packed: Packed) -> Iterator[tuple[str, FactSpec]]:
        """See `Format`."""
        return _declare_codebook_facts(packed, LONGEST_NUMBERS)

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """See `Format`."""
        yield "index", _declare_index_stream(packed)
        yield "codebook", declare_finite_numbers(packed.facts["entries"], packed.facts["length"])
        yield "scale", declare_finite_numbers(packed.rows, count_groups(packed))

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """scale · C[index]."""
        check_unmasked(packed, mask)
        return compute_magnitudes(packed) * _look_up_codewords(packed, packed.tensors["codebook"].to(torch.float32))

    @classmethod
    def nearest(cls, packed: Packed, target: Tensor, mask: Tensor | None = None) -> Packed:
        """The codeword that leaves the least squared error, for every vector; the last one of a row counts real columns only."""
        check_unmasked(packed, mask)
        length, book = packed.facts["length"], packed.tensors["codebook"].to(torch.float32)
        short = (0, -packed.cols % length)
        size = torch.nn.functional.pad(compute_magnitudes(packed), short).view(-1, length)  # 0 past the last column
        pull = torch.nn.functional.pad(compute_magnitudes(packed) * target, short).view(-1, length)
        pieces = zip(pull.split(VECTORS_AT_ONCE), size.split(VECTORS_AT_ONCE), strict=True)
        index = torch.cat([(p @ book.mT - s.square() @ book.square().mT / 2).argmax(1) for p, s in pieces])
        return replace_codes(packed, "index", index, compute_index_width(packed.facts["entries"]), None)


def _declare_codebook_facts(packed: Packed, longest: int) -> Iterator[tuple[str, FactSpec]]:
    """Vectors of up to `longest` weights, codewords and groups."""
    yield "length", declare_integer(1, longest)
    yield "entries", declare_integer(1, MOST_ENTRIES)
    yield declare_span_fact(packed)


def _declare_index_stream(packed: Packed) -> TensorSpec:
    """The index of each vector, which must be that of a codeword."""
    entries = packed.facts["entries"]
    return declare_code_stream(packed.rows * -(-packed.cols // packed.facts["length"]), compute_index_width(entries), entries)


def declare_scale_tensors(packed: Packed) -> Iterator[tuple[str, TensorSpec]]:
    """Scales, column scales and means of a format with one sign a weight."""
    yield "scale", declare_finite_numbers(packed.rows, count_groups(packed))
    yield "column_scale", declare_finite_numbers(packed.cols, optional=True)
    yield "mean", declare_finite_numbers(packed.rows, count_groups(packed), optional=True)


def check_unmasked(packed: Packed, mask: Tensor | None) -> None:
    """Raise ShapeError where single weights are asked for."""
    if mask is not None:
        raise ShapeError(f"format {packed.format!r} stores whole vectors and cannot be masked; use it for the whole matrix.")


def compute_magnitudes(packed: Packed) -> Tensor:
    """scale · column_scale, float32 `[rows, cols]`."""
    scale = expand_groups(packed.tensors["scale"], packed.facts["span"], packed.cols)
    return scale * packed.tensors["column_scale"].to(torch.float32) if "column_scale" in packed.tensors else scale


def unpack_codewords(packed: Packed) -> Tensor:
    """The codebook as ±1, float32 `[entries, length]`."""
    entries, length = packed.facts["entries"], packed.facts["length"]
    bits = bitpack.unpack(packed.tensors["codebook"], 1, entries * length)
    return bits.view(entries, length).to(torch.float32) * 2 - 1


def decode_signs(packed: Packed) -> Tensor:
    """C[index] as ±1, float32 `[rows, cols]`."""
    return _look_up_codewords(packed, unpack_codewords(packed))


def _look_up_codewords(packed: Packed, words: Tensor) -> Tensor:
    """C[index] for the codebook `words [entries, length]`, `[rows, cols]`."""
    segments = -(-packed.cols // packed.facts["length"])
    index = bitpack.unpack(packed.tensors["index"], compute_index_width(packed.facts["entries"]), packed.rows * segments)
    return words[index].view(packed.rows, -1)[:, : packed.cols]
