"""Viterbi's algorithm on the bitshift trellis (see `packing.trellis_code`), several sequences on several threads."""

import numpy as np
from numba import njit, prange

from workbench.kernels.jit.threads import use_threads
from workbench.kernels.packing.trellis_code import NEVER


@njit(cache=True, nogil=True, fastmath=True)
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


@njit(cache=True, nogil=True, fastmath=True)
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


@njit(cache=True, nogil=True)
def _search_path(
    y: np.ndarray, scale: np.ndarray, words: np.ndarray, size: np.ndarray, bits: int, seam: int, best_codes: np.ndarray
) -> None:
    """Fill `best_codes [steps]` with the states of the best path for `y [steps, length]`; a seam of −1 leaves both ends free."""
    steps, low = len(y), words.shape[1] >> bits
    cost, reached = np.empty(words.shape[1], np.float32), np.zeros(low, np.float32)
    if seam >= 0:
        reached[:] = NEVER
        reached[seam] = 0
    oldest = np.empty((steps, low), np.uint16)
    for t in range(steps):
        _extend_paths(cost, reached, y[t], scale[t], words, size)
        _merge_paths(cost, reached, oldest[t])
    common = np.argmin(reached) if seam < 0 else seam
    for t in range(steps - 1, -1, -1):
        best_codes[t] = int(oldest[t, common]) * low + common
        common = best_codes[t] >> bits


@njit(parallel=True, cache=True, nogil=True)
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
