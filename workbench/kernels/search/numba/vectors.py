"""Nearest real-valued codeword: 32 vectors at a time against one codeword after the other, the best so far in registers."""

import numpy as np
from numba import prange

from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.jit.simd import choose_less, fill, load_floats, multiply, multiply_add, store_floats, subtract
from workbench.kernels.jit.threads import needs_threads, use_threads

LANES = 32
THREAD_BLOCKS = 64  # of 32 vectors, that a thread takes at a time


@compile_cached
def _search_blocks(
    y: np.ndarray,
    scale: np.ndarray,
    square: np.ndarray,
    words: np.ndarray,
    half: np.ndarray,
    first: int,
    last: int,
    out: np.ndarray,
) -> None:
    """Fill `out` for blocks `first:last` of 32 vectors of `y [length, n]`, as float32 numbers."""
    for block in range(first, last):
        at = block * LANES
        best, which = fill(np.float32(-np.inf)), fill(np.float32(0))
        for k in range(len(words)):
            word = words[k]
            product = multiply(fill(word[0]), load_floats(y[0], at))
            for v in range(1, len(word)):
                product = multiply_add(fill(word[v]), load_floats(y[v], at), product)
            gain = subtract(multiply(load_floats(scale, at), product), multiply(load_floats(square, at), fill(half[k])))
            which = choose_less(best, gain, fill(np.float32(k)), which)
            best = choose_less(best, gain, gain, best)
        store_floats(out, at, which)


@compile_cached(parallel=True)
def _search_parallel(
    y: np.ndarray, scale: np.ndarray, square: np.ndarray, words: np.ndarray, half: np.ndarray, out: np.ndarray
) -> None:
    """`_search_blocks` for all vectors, on all threads."""
    blocks = len(scale) // LANES
    for piece in prange((blocks + THREAD_BLOCKS - 1) // THREAD_BLOCKS):
        first = piece * THREAD_BLOCKS
        _search_blocks(y, scale, square, words, half, first, min(blocks, first + THREAD_BLOCKS), out)


def find_nearest_vectors(w: np.ndarray, scale: np.ndarray, words: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Numbers, int64 `[n]`, for `w [n, length]`, `scale [n, 1]`, `words [entries, length]` and their `half [entries]` squares."""
    n, length = w.shape
    full = -(-n // LANES) * LANES
    y, scales = np.zeros((length, full), np.float32), np.zeros(full, np.float32)
    y[:, :n], scales[:n] = w.T, scale[:, 0]
    out = np.empty(full, np.float32)
    inputs = (y, scales, np.square(scales), np.ascontiguousarray(words), half)
    if needs_threads(n * len(words)):
        with use_threads():
            _search_parallel(*inputs, out)
    else:
        _search_blocks(*inputs, 0, full // LANES, out)
    return out[:n].astype(np.int64)
