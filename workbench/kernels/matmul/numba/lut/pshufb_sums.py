"""Sums of inputs by signs on any processor: a step of 64 rows at a time, looked up in 16 bytes (`pshufb`), for one input.

Byte 2r of a step belongs to row r of the stripe, byte 2r + 1 to row 32 + r, bit j to column j: so sums of even bytes and sums of
odd bytes are each 32 neighbouring rows. They are kept in 16 bits, which `stripe_layout.compute_chunk_edges` sees to.
"""

from typing import Any

import numpy as np

from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.jit.simd import (
    add_bytes,
    add_words,
    broadcast,
    fill,
    high_nibbles,
    load,
    look_up,
    low_nibbles,
    multiply_add,
    no_bytes,
    odd_bytes,
    prefetch,
    store_floats,
    without_odd,
    words_to_floats,
)

STEP_BYTES = 64  # bytes: one of each row
TABLES = 32  # bytes: two tables, for half a byte of signs each
PREFETCH_BYTES = 4096  # bytes to ask the memory for in advance


@compile_cached
def _sum_exact_entries(
    signs: np.ndarray, at: int, plane_bytes: int, planes: int, table: np.ndarray, table_at: int, steps: int
) -> tuple[Any, Any]:
    """Sums of 64 rows over some steps of planes, each of which counts half the one before; entries of 15 bits; even bytes, then
    odd bytes."""
    low, low_odd, high, high_odd = no_bytes(), no_bytes(), no_bytes(), no_bytes()
    for plane in range(planes):
        low, low_odd = add_words(low, low), add_words(low_odd, low_odd)
        high, high_odd = add_words(high, high), add_words(high_odd, high_odd)
        offset, to = at + plane * plane_bytes, table_at
        for _ in range(steps):
            prefetch(signs, offset + PREFETCH_BYTES)
            byte = load(signs, offset)
            first, second = low_nibbles(byte), high_nibbles(byte)
            sums = add_bytes(look_up(broadcast(table, to), first), look_up(broadcast(table, to + 16), second))
            low, low_odd = add_words(low, sums), add_words(low_odd, odd_bytes(sums))
            sums, other = look_up(broadcast(table, to + 32), first), look_up(broadcast(table, to + 48), second)
            high, high_odd = add_words(high, sums), add_words(high_odd, odd_bytes(sums))
            high, high_odd = add_words(high, other), add_words(high_odd, odd_bytes(other))
            offset, to = offset + STEP_BYTES, to + 2 * TABLES
    digit = fill(np.float32(128))
    even = multiply_add(digit, words_to_floats(without_odd(high, high_odd)), words_to_floats(without_odd(low, low_odd)))
    return even, multiply_add(digit, words_to_floats(high_odd), words_to_floats(low_odd))


@compile_cached
def _sum_fast_entries(
    signs: np.ndarray, at: int, plane_bytes: int, planes: int, table: np.ndarray, table_at: int, steps: int
) -> tuple[Any, Any]:
    """The same with entries of 7 bits."""
    low, low_odd = no_bytes(), no_bytes()
    for plane in range(planes):
        low, low_odd = add_words(low, low), add_words(low_odd, low_odd)
        offset, to = at + plane * plane_bytes, table_at
        for _ in range(steps):
            prefetch(signs, offset + PREFETCH_BYTES)
            byte = load(signs, offset)
            first, second = low_nibbles(byte), high_nibbles(byte)
            sums = add_bytes(look_up(broadcast(table, to), first), look_up(broadcast(table, to + 16), second))
            low, low_odd = add_words(low, sums), add_words(low_odd, odd_bytes(sums))
            offset, to = offset + STEP_BYTES, to + TABLES
    return words_to_floats(without_odd(low, low_odd)), words_to_floats(low_odd)


@compile_cached(inline="always")
def sum_one_input(
    signs: np.ndarray,
    at: int,
    plane_bytes: int,
    planes: int,
    table: np.ndarray,
    to: int,
    steps: int,
    digits: int,
    sums: np.ndarray,
) -> None:
    """Write the sums of a stripe for one input to `sums [64]`."""
    if digits == 1:
        even, odd = _sum_fast_entries(signs, at, plane_bytes, planes, table, to, steps)
    else:
        even, odd = _sum_exact_entries(signs, at, plane_bytes, planes, table, to, steps)
    store_floats(sums, 0, even)
    store_floats(sums, 32, odd)
