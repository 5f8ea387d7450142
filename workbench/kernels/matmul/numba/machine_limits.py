"""Limits of this processor: loops that only read, only multiply, or do nothing."""

import numpy as np
from numba import prange

from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.jit.simd import (
    add_bytes,
    add_floats,
    fill,
    load,
    load_floats,
    multiply,
    multiply_add,
    no_bytes,
    prefetch,
    store,
    store_floats,
)

PREFETCH_BYTES = 4096
STREAM = 256  # bytes read in one turn of the loop


@compile_cached(parallel=True)
def read(data: np.ndarray, out: np.ndarray) -> None:
    """Read all of `data` (uint8), a piece for each row of `out [pieces, 64]`, which receives what keeps the reading alive."""
    pieces = len(out)
    piece_bytes = len(data) // pieces // STREAM * STREAM
    for piece in prange(pieces):
        a, b, c, d = no_bytes(), no_bytes(), no_bytes(), no_bytes()
        for at in range(piece * piece_bytes, (piece + 1) * piece_bytes, STREAM):
            for line in range(0, STREAM, 64):
                prefetch(data, at + PREFETCH_BYTES + line)
            a, b = add_bytes(a, load(data, at)), add_bytes(b, load(data, at + 64))
            c, d = add_bytes(c, load(data, at + 128)), add_bytes(d, load(data, at + 192))
        store(out.reshape(-1), 64 * piece, add_bytes(add_bytes(a, b), add_bytes(c, d)))


@compile_cached(parallel=True)
def run_multiply_adds(turns: int, out: np.ndarray) -> None:
    """8 × 32 float32 multiply-adds that do not wait for each other, `turns` times, for each row of `out [pieces, 32]`."""
    for piece in prange(len(out)):
        flat = out.reshape(-1)
        # nothing here may be known when this is compiled, and no two of them equal
        by, plus = fill(np.float32(1) / np.float32(turns)), load_floats(flat, 32 * piece)
        a, b, c, d = plus, add_floats(plus, by), multiply(plus, by), multiply_add(by, by, plus)
        e, f, g, h = add_floats(a, b), add_floats(b, c), add_floats(c, d), add_floats(d, b)
        for _ in range(turns):
            a, b = multiply_add(a, by, plus), multiply_add(b, by, plus)
            c, d = multiply_add(c, by, plus), multiply_add(d, by, plus)
            e, f = multiply_add(e, by, plus), multiply_add(f, by, plus)
            g, h = multiply_add(g, by, plus), multiply_add(h, by, plus)
        sums = add_floats(add_floats(add_floats(a, b), add_floats(c, d)), add_floats(add_floats(e, f), add_floats(g, h)))
        store_floats(flat, 32 * piece, sums)


@compile_cached
def do_nothing(x: np.ndarray, y: np.ndarray) -> None:
    """What a call costs."""
