"""Nearest codeword by weighted Hamming distance: an exact search that visits few codewords.

A codeword is split into its first and second half of signs, and codewords are sorted by their second half. Two small tables
hold the cost of every combination of flipped signs of a half; a second half that costs more than the best codeword so far
is skipped with all codewords that end in it.
"""

import numpy as np
from numba import njit, prange

from workbench.kernels.jit.threads import use_threads

VECTORS_PER_TABLE = 256  # vectors that use the same tables one after the other


@njit(cache=True, nogil=True)
def fill(table: np.ndarray, y: np.ndarray) -> None:
    """table[f] = Σ|y| over the bits of f, by doubling."""
    table[0] = 0
    for j in range(len(y)):
        half, size = 1 << j, abs(y[j])
        for f in range(half):
            table[half + f] = table[f] + size


@njit(parallel=True, cache=True, nogil=True)
def search(y: np.ndarray, starts: np.ndarray, order: np.ndarray, words: np.ndarray, index: np.ndarray, cost: np.ndarray) -> None:
    """Fill `index` and `cost` for every row of `y`; `index` holds the previous numbers, which win ties, or −1.

    `order` lists codewords by their second half; those with second half h are `order[starts[h]:starts[h + 1]]`.
    """
    count, length = y.shape
    low = length // 2
    mask = (1 << low) - 1
    for chunk in prange((count + VECTORS_PER_TABLE - 1) // VECTORS_PER_TABLE):
        first, second = np.empty(1 << low, np.float32), np.empty(1 << (length - low), np.float32)
        for i in range(chunk * VECTORS_PER_TABLE, min(count, (chunk + 1) * VECTORS_PER_TABLE)):
            pattern = 0
            for j in range(length):
                pattern |= int(y[i, j] >= 0) << j
            fill(first, y[i, :low])
            fill(second, y[i, low:])
            best, chosen, previous = np.float32(np.inf), len(words), index[i]
            if previous >= 0:
                flips = pattern ^ words[previous]
                best, chosen = first[flips & mask] + second[flips >> low], -1
            for half in range(len(second)):
                if second[half] > best:
                    continue
                at = half ^ (pattern >> low)
                for slot in range(starts[at], starts[at + 1]):
                    k = order[slot]
                    now = first[(pattern ^ words[k]) & mask] + second[half]
                    if now < best or (now == best and k < chosen):
                        best, chosen = now, k
            index[i] = previous if chosen < 0 else chosen
            cost[i] = best


def find_nearest_codewords(y: np.ndarray, words: np.ndarray, previous: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Number of the codeword with the largest ⟨y, c⟩ for rows of `y [n, length]`, and Σ|y| over the signs it flips.

    Bit j of a word is 1 for a +1 in column j. Returns int64 and float32 `[n]`.
    """
    length = y.shape[1]
    halves = words >> (length // 2)
    order = np.argsort(halves, kind="stable")
    starts = np.searchsorted(halves[order], np.arange((1 << (length - length // 2)) + 1))
    index = np.full(len(y), -1) if previous is None else previous.astype(np.int64)
    cost = np.empty(len(y), np.float32)
    with use_threads():
        search(np.ascontiguousarray(y, np.float32), starts, order, words, index, cost)
    return index, cost
