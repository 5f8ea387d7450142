"""Nearest codeword by Hamming distance: XOR and population count on bit-packed words.

One key per codeword, (distance << 24) | number, makes the search a plain minimum that LLVM turns into vector code, and the
smallest number wins among equal distances.
"""

from typing import Any

import numpy as np
from numba import njit, prange, types
from numba.extending import intrinsic

from workbench.kernels.jit.threads import use_threads

NUMBER = 24  # bits of a codeword's number in a key


def count_ones(_typing: Any, _word: Any) -> Any:
    """The processor's own instruction for the number of ones in a uint32."""
    return types.uint32(types.uint32), lambda _context, builder, _signature, args: builder.ctpop(args[0])


popcount: Any = intrinsic(count_ones)


@njit(parallel=True, cache=True, nogil=True)
def search(points: np.ndarray, words: np.ndarray, index: np.ndarray, distance: np.ndarray) -> None:
    """Fill `index` and `distance` for every point; `index` holds the previous numbers, which win ties, or −1."""
    for i in prange(len(points)):
        point = points[i]
        best = np.uint32(0xFFFFFFFF)
        for k in range(len(words)):
            best = min(best, (popcount(point ^ words[k]) << np.uint32(NUMBER)) | np.uint32(k))
        nearest = best >> np.uint32(NUMBER)
        previous = index[i]
        if previous < 0 or popcount(point ^ words[previous]) > nearest:
            index[i] = best & np.uint32((1 << NUMBER) - 1)
        distance[i] = nearest


def find_nearest_codewords(points: np.ndarray, words: np.ndarray, previous: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Number of the nearest of `words` for each of `points` (integers below 2^24) and its distance, int64 `[n]` each."""
    index = np.full(len(points), -1) if previous is None else previous.astype(np.int64)
    distance = np.empty(len(points), np.int64)
    with use_threads():
        search(points.astype(np.uint32), words.astype(np.uint32), index, distance)
    return index, distance
