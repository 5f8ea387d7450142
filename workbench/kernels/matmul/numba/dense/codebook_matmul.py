"""Matmuls with indices of real-valued codewords, kept as stored: vector codebooks, scalar tables, and trellises.

All are one thing: a step of a row stores a few bits, the last `state` bits of its column of steps say which word stands there.
A codebook's state is the index itself; a trellis remembers the rows above. Words are decoded some rows at a time.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numba import prange
from torch import Tensor

from workbench.kernels.formats.codebook import compute_index_width
from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.jit.simd import load, load_long, store
from workbench.kernels.jit.threads import needs_threads, use_threads
from workbench.kernels.matmul.numba.dense import fp16_matmul
from workbench.kernels.matmul.numba.dense.fp16_matmul import MANY_INPUTS, THREAD_ROWS, pad_groups
from workbench.kernels.matmul.numba.supported import MAX_CODEWORD_LENGTH
from workbench.kernels.packing import bitpack, trellis_code
from workbench.kernels.packing.packed import Packed

JOINED = 10  # bits of the index of a word that is made of several
COPIED = (
    MAX_CODEWORD_LENGTH  # numbers that one copy moves, whatever the length of a word; the next word overwrites what is too much
)
WINDOW = 8  # bytes that are read at once
WINDOW_BITS = 57  # bits of them that are there wherever in a byte the first one is


@dataclass(frozen=True)
class Words:
    """`stream` of codes of `bits`, `words` the fp16 bits of 2^state times `length` numbers, `scale [rows, groups]`."""

    stream: np.ndarray
    words: np.ndarray
    scale: np.ndarray
    bits: int
    state: int
    length: int
    cols: int
    span: int

    @property
    def bytes(self) -> int:
        """Bytes of codes, words and scales."""
        return self.stream.nbytes + self.words.nbytes + self.scale.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """x Wᵀ for float32 `x [n, cols]`."""
        inputs = pad_groups(x, self.span, self.scale.shape[1])
        if len(x) >= MANY_INPUTS:
            return fp16_matmul.multiply_by_tiles(inputs, self.scale, lambda rows: self.decode(rows, inputs.shape[1]))
        y = np.empty((len(x), len(self.scale)), np.float32)
        if needs_threads(self.scale.shape[0] * self.cols * len(x)):
            with use_threads():
                multiply_parallel(inputs.numpy(), *self.loop_arguments, y)
        else:
            multiply_serial(inputs.numpy(), *self.loop_arguments, y)
        return torch.from_numpy(y)

    @property
    def loop_arguments(self) -> tuple[np.ndarray | int, ...]:
        """What the loops take between inputs and outputs."""
        return self.stream, self.words, self.scale, self.bits, self.state, self.length, self.cols, self.span

    def decode(self, rows: slice, width: int) -> np.ndarray:
        """Some rows as fp16 bits `[n, width]`; see `decode`."""
        out = np.empty((rows.stop - rows.start, width), np.uint16)
        decode(
            self.stream, self.words, self.bits, self.state, self.length, self.cols, self.span, len(self.scale), rows.start, out
        )
        return out


def keep_words(packed: Packed) -> Words:
    """Formats `vector-codebook` and `trellis` as they are stored; short words are joined, as a look-up costs the same for any."""
    scale, length = packed.tensors["scale"].float(), packed.facts["length"]
    if packed.format == "trellis":
        bits, state, stream = packed.facts["bits"], packed.facts["state"], packed.tensors["path"]
        book, scale = round_trellis_values(packed), scale / trellis_code.DEVIATION
    else:
        bits = state = compute_index_width(packed.facts["entries"])
        stream, book = packed.tensors["index"], packed.tensors["codebook"]
        book = torch.nn.functional.pad(book, (0, 0, 0, (1 << state) - len(book)))
        while 2 * bits <= JOINED and 2 * length <= MAX_CODEWORD_LENGTH and packed.cols % (2 * length) == 0:
            book = torch.cat([book.repeat(len(book), 1), book.repeat_interleave(len(book), 0)], 1)
            bits, state, length = 2 * bits, 2 * state, 2 * length
    words = torch.nn.functional.pad(book.flatten(), (0, COPIED)).view(torch.int16).numpy().view(np.uint16)
    room = np.concatenate([stream.numpy(), np.zeros(WINDOW, np.uint8)])
    return Words(
        room, words, scale.contiguous().numpy(), bits, state, length, packed.cols, min(packed.facts["span"], packed.cols)
    )


def round_trellis_values(packed: Packed) -> Tensor:
    """What the states of a trellis stand for, before they are divided by their deviation; whole numbers, exact in fp16."""
    return (
        (trellis_code.compute_state_values(packed.facts["state"], packed.facts["length"]) * trellis_code.DEVIATION).round().half()
    )


def decode_to_fp16(packed: Packed) -> fp16_matmul.Halves:
    """The same formats, decoded once."""
    rows, cols, length = packed.rows, packed.cols, packed.facts["length"]
    scale, steps = packed.tensors["scale"].float(), -(-cols // length)
    if packed.format == "trellis":
        codes = bitpack.unpack(packed.tensors["path"], packed.facts["bits"], rows * steps).view(rows, steps)
        book, scale = round_trellis_values(packed), scale / trellis_code.DEVIATION
        index = trellis_code.compute_states(codes, packed.facts["bits"], packed.facts["state"])
    else:
        book = packed.tensors["codebook"]
        index = bitpack.unpack(packed.tensors["index"], compute_index_width(packed.facts["entries"]), rows * steps).view(
            rows, steps
        )
    return fp16_matmul.pack_fp16(book[index].view(rows, -1)[:, :cols], scale, cols, packed.facts["span"])


@compile_cached
def _advance_states(states: np.ndarray, stream: np.ndarray, first: int, bits: int, mask: int) -> None:
    """The states of all steps after the codes of one more row, which begin with code number `first` of the stream."""
    together, code, bit = WINDOW_BITS // bits, (1 << bits) - 1, first * bits
    for begin in range(0, len(states), together):
        window = load_long(stream, bit >> 3) >> (bit & 7)
        for step in range(begin, min(begin + together, len(states))):
            states[step] = (states[step] << bits | window & code) & mask
            window >>= bits
        bit += together * bits


@compile_cached
def decode(
    stream: np.ndarray,
    words: np.ndarray,
    bits: int,
    state: int,
    length: int,
    cols: int,
    span: int,
    rows: int,
    first: int,
    out: np.ndarray,
) -> None:
    """The rows from `first` on into `out [n, groups · width]`, fp16 bits; what lies beyond a group's columns is any number."""
    steps, mask = (cols + length - 1) // length, (1 << state) - 1
    groups = (cols + span - 1) // span
    width = out.shape[1] // groups
    states, flat = np.zeros(steps, np.int64), out.reshape(-1)
    row_values = np.zeros(max(steps * length + COPIED, groups * span + width), np.uint16)
    for row in range(first - (state + bits - 1) // bits + 1, first + len(out)):
        _advance_states(states, stream, (row % rows) * steps, bits, mask)
        if row < first:
            continue
        for step in range(steps):
            store(row_values, step * length, load(words, states[step] * length))
        for group in range(groups):
            to = (row - first) * out.shape[1] + group * width
            for at in range(0, width, COPIED):
                store(flat, to + at, load(row_values, group * span + at))


@compile_cached
def _multiply_row_block(
    x: np.ndarray,
    stream: np.ndarray,
    words: np.ndarray,
    scale: np.ndarray,
    bits: int,
    state: int,
    length: int,
    cols: int,
    span: int,
    first: int,
    y: np.ndarray,
) -> None:
    """Up to `THREAD_ROWS` rows of the product from `first` on."""
    last = min(len(scale), first + THREAD_ROWS)
    values = np.empty((last - first, x.shape[1]), np.uint16)
    decode(stream, words, bits, state, length, cols, span, len(scale), first, values)
    fp16_matmul.multiply(x, values, scale[first:last], first, y)


@compile_cached
def multiply_serial(
    x: np.ndarray,
    stream: np.ndarray,
    words: np.ndarray,
    scale: np.ndarray,
    bits: int,
    state: int,
    length: int,
    cols: int,
    span: int,
    y: np.ndarray,
) -> None:
    """y = x Wᵀ on this thread alone."""
    for first in range(0, len(scale), THREAD_ROWS):
        _multiply_row_block(x, stream, words, scale, bits, state, length, cols, span, first, y)


@compile_cached(parallel=True)
def multiply_parallel(
    x: np.ndarray,
    stream: np.ndarray,
    words: np.ndarray,
    scale: np.ndarray,
    bits: int,
    state: int,
    length: int,
    cols: int,
    span: int,
    y: np.ndarray,
) -> None:
    """y = x Wᵀ on all threads."""
    for block in prange((len(scale) + THREAD_ROWS - 1) // THREAD_ROWS):
        _multiply_row_block(x, stream, words, scale, bits, state, length, cols, span, block * THREAD_ROWS, y)
