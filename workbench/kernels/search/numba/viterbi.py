"""Viterbi's algorithm on the bitshift trellis (see `packing.trellis_code`), several sequences on several threads.

A step adds its cost to that of every state and keeps the cheapest of those that share all but their oldest bits. From 32 such
sets on (all trellises but those of tiny matrices) both happen in registers, 32 sets at a time.
"""

import numpy as np
from numba import prange

from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.jit.simd import (
    add_floats,
    choose_less,
    fill,
    load_floats,
    multiply,
    multiply_add,
    store_floats,
    store_words,
)
from workbench.kernels.jit.threads import use_threads
from workbench.kernels.packing.trellis_code import NEVER

LANES = 32


@compile_cached(fastmath=True)
def _merge_paths(cost: np.ndarray, reached: np.ndarray, oldest: np.ndarray) -> None:
    """The cheapest of the states that share all but their oldest bits, and which it was."""
    low = len(reached)
    for j in range(low):
        reached[j] = cost[j]
        oldest[j] = 0
    for p in range(1, len(cost) // low):
        above = cost[p * low : (p + 1) * low]
        for j in range(low):
            oldest[j] = p if above[j] < reached[j] else oldest[j]
            reached[j] = min(reached[j], above[j])


@compile_cached(fastmath=True)
def _extend_paths(
    cost: np.ndarray, reached: np.ndarray, y: np.ndarray, scale: float, words: np.ndarray, size: np.ndarray
) -> None:
    """The cost of every state after one more step with values `y [length]`; `words [length, states]`."""
    square, branches = scale * scale, len(cost) // len(reached)
    for s in range(len(cost)):
        cost[s] = square * size[s]
    for v in range(len(y)):
        factor = np.float32(-2 * scale * y[v])
        row = words[v]
        for s in range(len(cost)):
            cost[s] += factor * row[s]
    for j in range(len(reached)):
        arrived = reached[j]
        for c in range(j * branches, (j + 1) * branches):
            cost[c] += arrived


@compile_cached
def _spread_costs(reached: np.ndarray, branches: int, arrived: np.ndarray) -> None:
    """The cost of arriving at each state: that of its common bits before, `branches` times; `arrived` has LANES more places."""
    for j in range(len(reached)):
        for c in range(j * branches, (j + 1) * branches, LANES):
            store_floats(arrived, c, fill(reached[j]))


@compile_cached
def _take_step(
    arrived: np.ndarray,
    factors: np.ndarray,
    square: float,
    words: np.ndarray,
    size: np.ndarray,
    reached: np.ndarray,
    oldest: np.ndarray,
) -> None:
    """`_extend_paths` and `_merge_paths` in one, with `factors [length]` of −2 · scale · y and `square` of scale²."""
    low = len(reached)
    for j in range(0, low, LANES):
        for p in range(len(size) // low):
            s = p * low + j
            cost = multiply(fill(square), load_floats(size, s))
            for v in range(len(factors)):
                cost = multiply_add(fill(factors[v]), load_floats(words[v], s), cost)
            cost = add_floats(cost, load_floats(arrived, s))
            if p == 0:
                best, which = cost, fill(np.float32(0))
            else:
                which = choose_less(cost, best, fill(np.float32(p)), which)
                best = choose_less(cost, best, cost, best)
        store_floats(reached, j, best)
        store_words(oldest, j, which)


@compile_cached
def _search_path(
    y: np.ndarray, scale: np.ndarray, words: np.ndarray, size: np.ndarray, bits: int, seam: int, best_codes: np.ndarray
) -> None:
    """Fill `best_codes [steps]` with the states of the best path for `y [steps, length]`; a seam of −1 leaves both ends free."""
    steps, low = len(y), words.shape[1] >> bits
    cost, reached = np.empty(words.shape[1] + LANES, np.float32), np.zeros(low, np.float32)
    factors = np.empty(len(words), np.float32)
    if seam >= 0:
        reached[:] = NEVER
        reached[seam] = 0
    oldest = np.empty((steps, low), np.uint16)
    for t in range(steps):
        if low < LANES:
            _extend_paths(cost[: words.shape[1]], reached, y[t], scale[t], words, size)
            _merge_paths(cost[: words.shape[1]], reached, oldest[t])
            continue
        for v in range(len(factors)):
            factors[v] = np.float32(-2 * scale[t] * y[t, v])
        _spread_costs(reached, 1 << bits, cost)
        _take_step(cost, factors, scale[t] * scale[t], words, size, reached, oldest[t])
    common = np.argmin(reached) if seam < 0 else seam
    for t in range(steps - 1, -1, -1):
        best_codes[t] = int(oldest[t, common]) * low + common
        common = best_codes[t] >> bits


@compile_cached(parallel=True)
def _search_paths(
    y: np.ndarray, scale: np.ndarray, words: np.ndarray, size: np.ndarray, bits: int, seams: np.ndarray, best_codes: np.ndarray
) -> None:
    """`_search_path` for every sequence of `y [n, steps, length]`."""
    for i in prange(len(y)):
        _search_path(y[i], scale, words, size, bits, seams[i], best_codes[i])


def find_best_paths(y: np.ndarray, scale: np.ndarray, words: np.ndarray, bits: int, seams: np.ndarray) -> np.ndarray:
    """States `[steps, n]` for `y [steps, n, length]`, `scale [steps]` and `words [states, length]`, int64."""
    steps, n, _ = y.shape
    best_codes = np.empty((n, steps), np.int64)
    by_value = np.ascontiguousarray(words.T, np.float32)
    size = np.square(by_value).sum(0)
    with use_threads():
        _search_paths(
            np.ascontiguousarray(y.transpose(1, 0, 2), np.float32),
            scale.astype(np.float32),
            by_value,
            size,
            bits,
            seams,
            best_codes,
        )
    return np.ascontiguousarray(best_codes.T)
