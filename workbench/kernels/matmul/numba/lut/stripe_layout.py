"""From stored bits to stripes: the order in which `sign_matmul.py` reads signs, scales and offsets.

A byte holds the signs of one row and one step of 8 columns, the first column in its lowest bit; each half selects an entry of a
table of 16 sums (`tables.py`):

    column    7 6 5 4   3 2 1 0
    byte      1 0 1 1   0 1 1 0      1 is +, 0 is −
              ───┬───   ───┬───
          entry 11 of   entry 6 of   the sums of x₄ … x₇ and of x₀ … x₃ under all 16 patterns of signs

64 rows are a stripe, and a stripe is one forward stream of bytes. A chunk is a run of steps whose tables share a scale:

    stripe 0                                                        stripe 1 …
    chunk 0                                chunk 1 …
    plane 0            plane 1 …           plane 0 …
    step 0  step 1 …   step 0  step 1 …    step 0 …
    64 B    64 B

The 64 bytes of a step alone (`pshufb_sums.py`), and the 256 bytes of four steps that are interleaved (`vnni_sums.py`):

    row     0  32   1  33   2  34  …  31  63
    row     0   0   0   0   1   1   1   1   2   2   2   2  …  63  63  63  63
    step    0   1   2   3   0   1   2   3   0   1   2   3  …   0   1   2   3
"""

import mmap
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.kernels.formats import codebook, parity, ternary
from workbench.kernels.formats.format import unpack_codes
from workbench.kernels.jit.simd import DOTS
from workbench.kernels.matmul.numba.lut import stripe_order, vnni_sums
from workbench.kernels.matmul.numba.lut.sign_matmul import STRIPE_ROWS
from workbench.kernels.matmul.numba.supported import STEP_COLUMNS
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed

MAX_CHUNK_STEPS = 512  # steps that share the scale of their tables, at most
WORD_STEPS = vnni_sums.WORD_BYTES if DOTS else 1  # steps whose tables lie side by side
LARGE_PAGE = 2 << 20
JOINED = 4  # planes of a binary code that are added up before they are scaled
MAX_UINT16 = 65535  # the largest sum that fits the 16 bits of `pshufb_sums.py`
STEP_SUM = 510  # the most that a step adds to it; the highest of n joined planes 2^(n−1) times as much


@dataclass(frozen=True)
class Indices:
    """Stands for the signs of a matrix in `codeword_matmul.py`: `vectors` indices a row, `width` bits for `length` columns."""

    stream: np.ndarray
    words: np.ndarray
    width: int
    vectors: int
    length: int

    @property
    def bytes(self) -> int:
        """Bytes of indices and codewords."""
        return self.stream.nbytes + self.words.nbytes


@dataclass(frozen=True)
class Stripes:
    """A matrix `[rows, cols]` as the compiled loops read it; see `signs.Matrix` for its arrays."""

    rows: int
    cols: int
    signs: np.ndarray
    scale: np.ndarray
    mean: np.ndarray
    zero: np.ndarray
    edges: np.ndarray
    column: np.ndarray
    planes: int
    joined: int
    span: int
    abreast: int

    @property
    def bytes(self) -> int:
        """Bytes of all arrays."""
        values = (getattr(self, field.name) for field in fields(self))
        return sum(value.nbytes for value in values if isinstance(value, np.ndarray))

    def part(self, first: int, last: int) -> "Stripes":
        """The stripes from `first` to `last`; their last rows may be there only to fill them."""
        count = -(-self.rows // STRIPE_ROWS)

        def cut(values: np.ndarray) -> np.ndarray:
            part_length = len(values) // count
            return values[first * part_length : last * part_length]

        parts: dict[str, Any] = {name: cut(getattr(self, name)) for name in ("signs", "scale", "mean", "zero")}
        return replace(self, rows=STRIPE_ROWS * (last - first), **parts)


def lay_out_planes(packed: Packed, mask: Tensor | None = None) -> Stripes:
    """Format `planes`.

    Of signs stored inside a mask the others are arbitrary: the mask must be the same for all rows, and their inputs zero.
    """
    count, scale = packed.facts["planes"], packed.tensors["scale"]
    signs = (
        _read_plane_bytes(packed, count)
        if mask is None
        else _pack_sign_bytes(unpack_codes(packed, "signs", 1, mask, count).bool())
    )
    return _build_stripes(packed, signs, scale, mean=packed.tensors.get("mean"), column=packed.tensors.get("column_scale"))


def lay_out_masked_planes(packed: Packed, mask: Tensor) -> Stripes:
    """Twice the matrix of `planes` inside a mask; twice, since a fp16 scale cannot always be halved.

    Every plane becomes two, which agree where the mask is true and cancel elsewhere (so two planes hold a ternary matrix); a mean
    becomes a plane and a mean.
    """
    count, scale = packed.facts["planes"], packed.tensors["scale"]
    mean, column = packed.tensors.get("mean"), packed.tensors.get("column_scale")
    positive = unpack_codes(packed, "signs", 1, mask, count).bool()
    signs = torch.stack([positive | ~mask, positive & mask], 1).flatten(0, 1)
    scale = scale.repeat_interleave(2, 0)
    column = None if column is None else column.repeat_interleave(2, 0)
    if mean is not None:
        signs, scale = torch.cat([signs, mask[None]]), torch.cat([scale, mean[None]])
        column = None if column is None else torch.cat([column, torch.ones_like(column[:1])])
    return _build_stripes(packed, _pack_sign_bytes(signs), scale, mean=mean, column=column)


def lay_out_trits(packed: Packed, mask: Tensor | None = None) -> Stripes:
    """Twice the matrix of `ternary`: every plane becomes two, which agree where a trit is not 0."""
    trits = ternary.unpack_trits(packed, mask)
    signs = torch.stack([trits >= 0, trits > 0], 1).flatten(0, 1)
    return _build_stripes(packed, _pack_sign_bytes(signs), packed.tensors["scale"].repeat_interleave(2, 0))


def lay_out_codes(packed: Packed, mask: Tensor | None = None) -> Stripes:
    """Format `uniform`: a plane for each bit, the highest first; outside a mask the code is that of 0."""
    bits, scale = packed.facts["bits"], packed.tensors["scale"]
    if "zero" in packed.tensors:
        zero = bitpack.unpack(packed.tensors["zero"], bits, scale.numel()).view_as(scale)
    else:
        zero = torch.full_like(scale, 1 << (bits - 1), dtype=torch.int32)
    if mask is None and packed.cols % STEP_COLUMNS == 0:
        return _build_stripes(packed, None, scale[None], zero=zero)
    code = unpack_codes(packed, "codes", bits, mask)[0].to(torch.uint8)
    if mask is not None:
        spread = zero.to(torch.uint8).repeat_interleave(packed.facts["span"], 1)[:, : packed.cols]
        code = torch.where(mask, code, spread)
    signs = np.concatenate([_pack_sign_bytes((code >> bit & 1)[None].bool()) for bit in reversed(range(bits))])
    return _build_stripes(packed, signs, scale[None], zero=zero)


def lay_out_codebook(packed: Packed) -> Stripes:
    """Format `binary-codebook`, its signs looked up once."""
    index, words = _unpack_codebook(packed)
    positive = words[index].view(1, packed.rows, -1)[..., : packed.cols].bool()
    return _build_stripes(packed, _pack_sign_bytes(positive), **_collect_scale_tensors(packed))


def lay_out_parity(packed: Packed) -> Stripes:
    """Format `parity-signs`, the signs that follow from others filled in once."""
    return _build_stripes(packed, _pack_sign_bytes(~parity.find_negative_signs(packed)[None]), **_collect_scale_tensors(packed))


def lay_out_scales(packed: Packed) -> Stripes:
    """Format `binary-codebook` without its signs, for which `lay_out_indices` stands."""
    nothing = np.zeros((1, 0, -(-packed.cols // STEP_COLUMNS)), np.uint8)
    return _build_stripes(packed, nothing, **_collect_scale_tensors(packed))


def lay_out_indices(packed: Packed) -> Indices:
    """The indices of `binary-codebook`, packed to the bit in the order of stripes, and its codewords."""
    index, words = _unpack_codebook(packed)
    length, width = words.shape[1], codebook.compute_index_width(len(words))
    full = np.pad(index.numpy().reshape(packed.rows, -1), ((0, -packed.rows % STRIPE_ROWS), (0, 0)))
    lanes = full.reshape(-1, STRIPE_ROWS, full.shape[1]).transpose(0, 2, 1)
    if _choose_steps_abreast(packed) == 1:  # row r of a stripe beside row 32 + r
        lanes = lanes.reshape(*lanes.shape[:2], 2, STRIPE_ROWS // 2).swapaxes(2, 3).reshape(lanes.shape)
    fields, have = [], 0
    for bits in [8] * (width // 8) + [bits for bits in (4, 2, 1) if width & bits]:
        parts = (lanes >> have & (1 << bits) - 1).astype(np.uint8).reshape(*lanes.shape[:2], -1, 8 * bits)
        fields.append(np.bitwise_or.reduce(parts << (bits * np.arange(parts.shape[2], dtype=np.uint8))[:, None], axis=2))
        have += bits
    stream = np.concatenate(fields, -1)
    buffer = allocate_pages(stream.size)
    buffer[:] = stream.reshape(-1)
    number = (words.to(torch.int64) << torch.arange(length)).sum(1).numpy().astype(np.uint16)
    every = np.pad(number, (0, (1 << width) - len(number)))  # so that no index leads out of it
    return Indices(buffer, every, width, full.shape[1], length)


def _unpack_codebook(packed: Packed) -> tuple[Tensor, Tensor]:
    """The index of every vector of columns, row by row, and the codewords as bits, uint8 `[entries, length]`."""
    entries, length = packed.facts["entries"], packed.facts["length"]
    words = bitpack.unpack(packed.tensors["codebook"], 1, entries * length).view(entries, length).to(torch.uint8)
    count = packed.rows * -(-packed.cols // length)
    return bitpack.unpack(packed.tensors["index"], codebook.compute_index_width(entries), count), words


def _collect_scale_tensors(packed: Packed) -> dict[str, Any]:
    """Scales, means and column scales of a format with one sign a weight as those of one plane."""
    column = packed.tensors.get("column_scale")
    magnitude = None if column is None else column[None]
    return {"scale": packed.tensors["scale"][None], "mean": packed.tensors.get("mean"), "column": magnitude}


def _build_stripes(
    packed: Packed,
    signs: np.ndarray | None,
    scale: Tensor,
    *,
    mean: Tensor | None = None,
    zero: Tensor | None = None,
    column: Tensor | None = None,
) -> Stripes:
    """Signs `[planes, rows, steps]` as bytes and scales `[scales, rows, groups]`, in stripes.

    `signs` None are the planes of stored codes, whose rows end on a byte; `zero` is there for codes only.
    """
    planes, joined = packed.facts["bits"] if signs is None else len(signs), 1 if zero is None else JOINED
    steps, span = -(-packed.cols // STEP_COLUMNS), _count_group_steps(packed)
    abreast = _choose_steps_abreast(packed)
    edges = compute_chunk_edges(-(-steps // abreast) * abreast, -(-span // abreast) * abreast, min(planes, joined), abreast)
    empty = np.zeros(0, np.uint16)
    return Stripes(
        packed.rows,
        packed.cols,
        _arrange_codes(packed, edges, abreast) if signs is None else _arrange_signs(signs, edges, abreast),
        _arrange_halves(scale),
        empty if mean is None else _arrange_halves(mean[None]),
        np.zeros(0, np.uint8) if zero is None else _arrange_rows(zero[None].numpy().astype(np.uint8)),
        edges,
        np.zeros((0, 0), np.float32) if column is None else column.to(torch.float32).numpy(),
        planes,
        joined,
        -(-span // abreast) * abreast,
        abreast,
    )


def _read_plane_bytes(packed: Packed, planes: int) -> np.ndarray:
    """The stored signs as bytes `[planes, rows, steps]`; they are such bytes already where rows end on one."""
    if packed.cols % STEP_COLUMNS == 0:
        return packed.tensors["signs"].numpy().reshape(planes, packed.rows, -1)
    return _pack_sign_bytes(unpack_codes(packed, "signs", 1, None, planes).bool())


def _pack_sign_bytes(positive: Tensor) -> np.ndarray:
    """Signs `[planes, rows, cols]` as bytes; the last byte of a row is filled up with zeros."""
    return np.packbits(positive.numpy(), axis=2, bitorder="little")


def _choose_steps_abreast(packed: Packed) -> int:
    """Steps whose tables lie side by side: more than one where this processor can, and groups consist of words of them."""
    span = _count_group_steps(packed)
    return 1 if span < -(-packed.cols // STEP_COLUMNS) and span % WORD_STEPS else WORD_STEPS


def _count_group_steps(packed: Packed) -> int:
    """Steps of a group; a group as wide as the row holds all of them."""
    return -(-min(packed.facts["span"], packed.cols) // STEP_COLUMNS)


def compute_chunk_edges(steps: int, span: int, joined: int, abreast: int) -> np.ndarray:
    """Where chunks begin and where the last one ends: no chunk is in two groups, or so long that its sums overflow."""
    longest = MAX_CHUNK_STEPS if abreast > 1 else min(MAX_CHUNK_STEPS, MAX_UINT16 // (STEP_SUM * ((1 << joined) - 1)))
    longest = 1 << (longest.bit_length() - 1)
    starts = [start for group in range(0, steps, span) for start in range(group, min(group + span, steps), longest)]
    return np.array([*starts, steps], np.int32)


def _arrange_signs(signs: np.ndarray, edges: np.ndarray, abreast: int) -> np.ndarray:
    """Bytes `[planes, rows, steps]` as `[stripe][chunk][plane][step][64]`, ordered as in `pshufb_sums.py` or `vnni_sums.py`."""
    if not signs.size:
        return np.zeros(0, np.uint8)
    stream = _allocate_stripes(signs.shape[1], len(signs), edges)
    stripe_order.arrange_signs(signs, edges, abreast, stream)
    return stream.reshape(-1)


def _arrange_codes(packed: Packed, edges: np.ndarray, abreast: int) -> np.ndarray:
    """The same of `uniform`, whose rows end on a byte, without unpacking it first."""
    bits = packed.facts["bits"]
    stream = _allocate_stripes(packed.rows, bits, edges)
    shape = packed.rows, packed.cols // STEP_COLUMNS, bits
    stripe_order.arrange_codes(packed.tensors["codes"].numpy(), shape, edges, abreast, stream)
    return stream.reshape(-1)


def _allocate_stripes(rows: int, planes: int, edges: np.ndarray) -> np.ndarray:
    """Zeros `[stripes, bytes]`."""
    stripes = -(-rows // STRIPE_ROWS)
    return allocate_pages(stripes * planes * STRIPE_ROWS * int(edges[-1])).reshape(stripes, -1)


def allocate_pages(size: int) -> np.ndarray:
    """So many bytes that begin on a page; on large pages, where there are such, from half of one on.

    A stream from memory stops at the end of each page of 4 kB to look the next one up.
    """
    # of shared memory, which is the default, Linux gives no large pages unless a system is set up for it
    private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    anonymous = mmap.mmap(-1, max(1, size) + LARGE_PAGE, **private)
    start = -np.frombuffer(anonymous, np.uint8).ctypes.data % LARGE_PAGE
    if size >= LARGE_PAGE // 2 and hasattr(mmap, "MADV_HUGEPAGE"):
        anonymous.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(anonymous, np.uint8, size, start)


def _arrange_halves(values: Tensor) -> np.ndarray:
    """fp16 values `[kinds, rows, groups]` as bits in the order of `_arrange_rows`."""
    return _arrange_rows(values.view(torch.int16).numpy().view(np.uint16))


def _arrange_rows(values: np.ndarray) -> np.ndarray:
    """Values `[kinds, rows, groups]` as `[stripe][group][kind][64]`."""
    kinds, rows, groups = values.shape
    full = np.pad(values, ((0, 0), (0, -rows % STRIPE_ROWS), (0, 0)))
    return np.ascontiguousarray(full.reshape(kinds, -1, STRIPE_ROWS, groups).transpose(1, 3, 0, 2)).reshape(-1)
