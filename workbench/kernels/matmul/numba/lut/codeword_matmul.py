"""Matmuls with a binary codebook that keep only indices: the codewords of 64 rows are looked up at each call.

Indices are packed to the bit. Those of one vector of columns and 64 rows (in the order of `sign_matmul.py`) lie together: of each
index first 8 bits as often as they fit, then 4, 2 and 1 where they are left; see `emit_unpack_field`. `words[k]` has bit j set
where sign j of codeword k is +1.
"""

from typing import Any

import numpy as np
from numba import prange

from workbench.kernels.jit.borrowed_arrays import borrow_array
from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.jit.simd import (
    chosen,
    drop,
    field_1,
    field_2,
    field_4,
    field_8,
    load_codes,
    merge,
    no_codes,
    prefetch,
    store_codes,
    store_low_bytes,
    store_pairs,
)
from workbench.kernels.matmul.numba.lut import tables
from workbench.kernels.matmul.numba.lut.sign_matmul import STRIPE_ROWS, Matrix, multiply_stripes
from workbench.kernels.matmul.numba.lut.tables import Tables

MAX_CODEWORD_COLUMNS = 16  # columns of half a word of `vnni_sums.py`, and the most that a codeword has
PREFETCH_INDEX_BYTES = 2048  # bytes to ask the memory for in advance
VECTORS_AT_ONCE = 16  # vectors of columns whose codewords are looked up in one go


@compile_cached
def _unpack_indices(stream: np.ndarray, at: int, width: int, indices_out: np.ndarray) -> None:
    """64 indices for each vector of columns, `indices_out [vectors · 64]`; field by field, for all vectors."""
    apart, have = 8 * width, 0
    vectors = len(indices_out) // STRIPE_ROWS
    for k in range(vectors):
        prefetch(stream, at + PREFETCH_INDEX_BYTES + k * apart)
        store_codes(indices_out, STRIPE_ROWS * k, field_8(stream, at + k * apart) if width >= 8 else no_codes())
    if width >= 8:
        at, have = at + 64, 8
    if width == 16:
        for k in range(vectors):
            codes = merge(load_codes(indices_out, STRIPE_ROWS * k), field_8(stream, at + k * apart), have)
            store_codes(indices_out, STRIPE_ROWS * k, codes)
    if width & 4:
        for k in range(vectors):
            codes = merge(load_codes(indices_out, STRIPE_ROWS * k), field_4(stream, at + k * apart), have)
            store_codes(indices_out, STRIPE_ROWS * k, codes)
        at, have = at + 32, have + 4
    if width & 2:
        for k in range(vectors):
            codes = merge(load_codes(indices_out, STRIPE_ROWS * k), field_2(stream, at + k * apart), have)
            store_codes(indices_out, STRIPE_ROWS * k, codes)
        at, have = at + 16, have + 2
    if width & 1:
        for k in range(vectors):
            codes = merge(load_codes(indices_out, STRIPE_ROWS * k), field_1(stream, at + k * apart), have)
            store_codes(indices_out, STRIPE_ROWS * k, codes)


@compile_cached(inline="always")
def _store_half(codes: Any, number: int, abreast: int, columns: np.ndarray, signs: np.ndarray) -> None:
    """16 columns of a stripe in the order of `sign_matmul.py`; four steps abreast wait in `columns` for the next 16."""
    at = 2 * STRIPE_ROWS * number
    if abreast == 1:
        store_low_bytes(signs, at, codes)
        if at + STRIPE_ROWS < len(signs):
            store_low_bytes(signs, at + STRIPE_ROWS, drop(codes, 8))
    elif number % 2 == 0:
        store_codes(columns, 0, codes)
    else:
        store_pairs(signs, at - 2 * STRIPE_ROWS, load_codes(columns, 0), codes)


@compile_cached
def decode(
    stream: np.ndarray, at: int, width: int, vectors: int, words: np.ndarray, length: int, abreast: int, signs_: np.ndarray
) -> None:
    """The signs of a stripe, ordered as in `sign_matmul.py`, from indices of so many vectors of columns that begin at `at`."""
    room = np.empty(STRIPE_ROWS * (VECTORS_AT_ONCE + 1), np.uint16)
    signs, indices_out, columns = borrow_array(signs_), borrow_array(room[STRIPE_ROWS:]), borrow_array(room[:STRIPE_ROWS])
    halves = -(-len(signs) // (2 * STRIPE_ROWS))
    waiting, have, done = no_codes(), 0, 0  # signs of the 16 columns that are not complete yet
    for first in range(0, vectors, VECTORS_AT_ONCE):
        count = min(VECTORS_AT_ONCE, vectors - first)
        _unpack_indices(stream, at, width, indices_out[: STRIPE_ROWS * count])
        at += 8 * width * count
        for k in range(count):
            codes, over = chosen(words, indices_out, STRIPE_ROWS * k), have + length - MAX_CODEWORD_COLUMNS
            waiting = merge(waiting, codes, have)
            have += length
            if over >= 0 and done < halves:
                _store_half(waiting, done, abreast, columns, signs)
                waiting, have, done = drop(codes, length - over) if over > 0 else no_codes(), over, done + 1
    for number in range(done, halves):
        _store_half(waiting, number, abreast, columns, signs)
        waiting = no_codes()


@compile_cached
def _multiply_stripe(
    stream: np.ndarray,
    width: int,
    vectors: int,
    words: np.ndarray,
    length: int,
    m: Matrix,
    t: Tables,
    number: int,
    y: np.ndarray,
) -> None:
    """64 rows of the product; the signs of `m` are not there."""
    steps = m.edges[-1]
    groups = (steps + m.span - 1) // m.span
    signs = np.empty(STRIPE_ROWS * steps, np.uint8)
    decode(stream, number * vectors * 8 * width, width, vectors, words, length, t.abreast, signs)
    rows = slice(STRIPE_ROWS * groups * number, STRIPE_ROWS * groups * (number + 1))
    mean = m.mean[rows] if len(m.mean) > 0 else m.mean
    stripe_matrix = Matrix(signs, m.scale[rows], mean, m.zero, m.edges, m.planes, m.joined, m.span)
    multiply_stripes(stripe_matrix, t, 0, 1, y[:, STRIPE_ROWS * number : STRIPE_ROWS * (number + 1)])


@compile_cached
def multiply_serial(
    x: np.ndarray,
    column: np.ndarray,
    stream: np.ndarray,
    width: int,
    vectors: int,
    words: np.ndarray,
    length: int,
    scale: np.ndarray,
    mean: np.ndarray,
    zero: np.ndarray,
    edges: np.ndarray,
    span: int,
    abreast: int,
    digits: int,
    y: np.ndarray,
) -> None:
    """The product on this thread alone; see `multiply_parallel`."""
    t = tables.make(x, column, edges, span, digits, abreast)
    m = Matrix(stream, scale, mean, zero, edges, 1, 1, span)
    for number in range((y.shape[1] + STRIPE_ROWS - 1) // STRIPE_ROWS):
        _multiply_stripe(stream, width, vectors, words, length, m, t, number, y)


@compile_cached(parallel=True)
def multiply_parallel(
    x: np.ndarray,
    column: np.ndarray,
    stream: np.ndarray,
    width: int,
    vectors: int,
    words: np.ndarray,
    length: int,
    scale: np.ndarray,
    mean: np.ndarray,
    zero: np.ndarray,
    edges: np.ndarray,
    span: int,
    abreast: int,
    digits: int,
    y: np.ndarray,
) -> None:
    """y = x Wᵀ for `x [inputs, cols]` and `y [inputs, rows]`, on all threads; see `signs.Matrix` and `tables.make`."""
    table_set = tables.make(x, column, edges, span, digits, abreast)
    # numba cannot carry a named tuple into a parallel loop
    table, first, start, unit, sums, norm, tables_per_input = table_set[:7]
    for number in prange((y.shape[1] + STRIPE_ROWS - 1) // STRIPE_ROWS):
        t = Tables(table, first, start, unit, sums, norm, tables_per_input, digits, abreast)
        m = Matrix(stream, scale, mean, zero, edges, 1, 1, span)
        _multiply_stripe(stream, width, vectors, words, length, m, t, number, y)
