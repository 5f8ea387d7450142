"""The layout that Triton kernels read, from stored bits, on the device of the stored tensors. Plain torch."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from workbench.kernels.formats import codebook, parity, ternary
from workbench.kernels.formats.format import unpack_codes
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed

BYTE = 8  # signs of a byte
SEGMENT_MULTIPLE = 8  # segments of a group are filled up to a multiple of this where a group is the whole row
FEW_ENTRIES = 512  # codewords whose sums fit shared memory, segment by segment
SIGN_FORM, INDEX_FORM, CODE_FORM = 0, 1, 2  # forms, as `triton_kernels.multiply` numbers them
FIELDS = {1: 1, 2: 2, 3: 4, 4: 4}  # bits that a code of so many takes in memory: bytes hold whole codes


@dataclass(frozen=True)
class Resident:
    """A matrix as the kernels read it.

    `form` says what `codes [planes, segments, rows]` are, integers that stand for `length` columns each: bytes of signs, indices,
    or bytes of codes. `words [entries]` int32, whose bit j is sign j, or empty for codes. `scale [planes, groups, rows]`,
    `zero [groups, rows]`, `mean [rows, groups]`, `column [planes, cols]` as stored or empty. `bits` of a code in memory; `factor`
    is applied to the result.
    """

    form: int
    rows: int
    cols: int
    span: int
    length: int
    bits: int
    codes: Tensor
    words: Tensor
    scale: Tensor
    zero: Tensor
    mean: Tensor
    column: Tensor
    factor: float = 1.0

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        values = (getattr(self, field.name) for field in fields(self))
        return sum(value.nbytes for value in values if isinstance(value, Tensor))


def make_resident(packed: Packed, *, keep_indices: bool) -> Resident:
    """The resident form of a coded matrix; a large binary codebook is decoded to signs unless its indices are to be kept."""
    if packed.format == "planes":
        count = packed.facts["planes"]
        positive = unpack_codes(packed, "signs", 1, None, count).bool()
        return _lay_out_signs(packed, positive, packed.tensors["scale"], packed.tensors.get("column_scale"))
    if packed.format == "ternary":  # twice the matrix: two planes for each, which agree where a trit is not 0
        trits = ternary.unpack_trits(packed)
        positive = torch.stack([trits >= 0, trits > 0], 1).flatten(0, 1)
        return _lay_out_signs(packed, positive, packed.tensors["scale"].repeat_interleave(2, 0), None, 0.5)
    if packed.format == "uniform":
        return lay_out_codes(packed)
    column = packed.tensors.get("column_scale")
    column = None if column is None else column[None]
    if packed.format == "parity-signs":
        return _lay_out_signs(packed, ~parity.find_negative_signs(packed)[None], packed.tensors["scale"][None], column)
    if packed.facts["entries"] <= FEW_ENTRIES or keep_indices:
        return lay_out_indices(packed, column)
    return _lay_out_signs(packed, codebook.decode_signs(packed)[None] > 0, packed.tensors["scale"][None], column)


def _lay_out_signs(packed: Packed, positive: Tensor, scale: Tensor, column: Tensor | None, factor: float = 1.0) -> Resident:
    """Signs `[planes, rows, cols]` as bytes of 8 columns; a byte is its own pattern."""
    full = _pad_columns(positive, BYTE * _compute_alignment(packed, BYTE))
    byte = _pack_bytes(full.to(torch.uint8), 1)
    words = torch.arange(256, dtype=torch.int32, device=byte.device)
    return _assemble_resident(SIGN_FORM, packed, byte, words, scale, BYTE, 1, column=column, factor=factor)


def lay_out_indices(packed: Packed, column: Tensor | None) -> Resident:
    """Indices of a binary codebook in as few whole bytes as they fit."""
    length, entries = packed.facts["length"], packed.facts["entries"]
    count = packed.rows * -(-packed.cols // length)
    index = bitpack.unpack(packed.tensors["index"], codebook.compute_index_width(entries), count).view(1, packed.rows, -1)
    index = _pad_columns(index, _compute_alignment(packed, length)).mT.contiguous()
    kind = torch.uint8 if entries <= 1 << 8 else torch.int16 if entries <= 1 << 15 else torch.int32
    bits = bitpack.unpack(packed.tensors["codebook"], 1, entries * length).view(entries, length)
    words = (bits << torch.arange(length, device=bits.device, dtype=torch.int32)).sum(1, dtype=torch.int32)
    return _assemble_resident(INDEX_FORM, packed, index.to(kind), words, packed.tensors["scale"][None], length, 1, column=column)


def lay_out_codes(packed: Packed) -> Resident:
    """Codes of 1 to 4 bits, as many to a byte as fit whole."""
    bits, scale = packed.facts["bits"], packed.tensors["scale"]
    per = BYTE // FIELDS[bits]
    byte = _pack_bytes(_pad_columns(unpack_codes(packed, "codes", bits, None).to(torch.uint8), per), FIELDS[bits])
    if "zero" in packed.tensors:
        zero = bitpack.unpack(packed.tensors["zero"], bits, scale.numel()).view_as(scale)
    else:
        zero = torch.full_like(scale, 1 << (bits - 1), dtype=torch.int32)
    zero = zero.mT.contiguous().to(torch.uint8)
    nothing = torch.empty(0, dtype=torch.int32, device=byte.device)
    return _assemble_resident(CODE_FORM, packed, byte, nothing, scale[None], per, FIELDS[bits], zero=zero)


def _assemble_resident(
    form: int,
    packed: Packed,
    codes: Tensor,
    words: Tensor,
    scale: Tensor,
    length: int,
    bits: int,
    *,
    zero: Tensor | None = None,
    column: Tensor | None = None,
    factor: float = 1.0,
) -> Resident:
    """What all forms have in common: scales with rows last, means, and empty tensors for what is not stored."""
    nothing = scale.new_empty(0)
    return Resident(
        form,
        packed.rows,
        packed.cols,
        min(packed.facts["span"], packed.cols),
        length,
        bits,
        codes,
        words,
        scale.mT.contiguous(),
        nothing if zero is None else zero,
        packed.tensors.get("mean", nothing),
        nothing if column is None else column,
        factor,
    )


def _compute_alignment(packed: Packed, length: int) -> int:
    """Segments of `length` columns that rows are filled up to a multiple of: groups end where they end, whole rows are free."""
    return SEGMENT_MULTIPLE if packed.facts["span"] >= packed.cols else packed.facts["span"] // length


def _pad_columns(values: Tensor, multiple: int) -> Tensor:
    """The last dimension filled up with zeros."""
    return torch.nn.functional.pad(values, (0, -values.shape[-1] % multiple))


def _pack_bytes(values: Tensor, bits: int) -> Tensor:
    """Codes `[planes, rows, cols]` of so many bits as bytes `[planes, cols · bits / 8, rows]`, the first in the lowest bits."""
    per = BYTE // bits
    apart = values.view(*values.shape[:2], -1, per) << (bits * torch.arange(per, device=values.device, dtype=torch.uint8))
    return apart.sum(-1, dtype=torch.uint8).mT.contiguous()
