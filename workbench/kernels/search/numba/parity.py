"""Nearest signs under parity checks: each column through the trellis, several columns on several threads."""

import functools

import numpy as np
from numba import njit, prange

from workbench.kernels.jit.threads import use_threads
from workbench.kernels.packing.parity_code import MEMORY, ParityCode


@njit(cache=True, nogil=True)
def _search_column(y: np.ndarray, masks: np.ndarray, closes: np.ndarray, states: int, out: np.ndarray) -> None:
    """Fill `out [rows]` for `y [rows]`."""
    rows, low = len(y), states // 2
    cost, fresh = np.full(states, np.float32(np.inf)), np.empty(states, np.float32)
    flips = np.empty((rows, states), np.bool_)
    cost[0] = 0
    for row in range(rows):
        mask, chosen = masks[row], flips[row]
        positive, negative = max(-y[row], np.float32(0)), max(y[row], np.float32(0))
        for state in range(states):
            stay, flip = cost[state] + positive, cost[state ^ mask] + negative
            chosen[state] = flip < stay
            fresh[state] = min(flip, stay)
        if closes[row]:
            for state in range(low):
                cost[state] = fresh[2 * state]
                cost[low + state] = np.float32(np.inf)
        else:
            cost, fresh = fresh, cost
    state = int(np.argmin(cost))
    for row in range(rows - 1, -1, -1):
        if closes[row]:
            state = 2 * state
        out[row] = flips[row, state]
        if out[row]:
            state ^= masks[row]


@njit(parallel=True, cache=True, nogil=True)
def _search_columns(y: np.ndarray, masks: np.ndarray, closes: np.ndarray, states: int, out: np.ndarray) -> None:
    """`_search_column` for every row of `y [cols, rows]`."""
    for i in prange(len(y)):
        _search_column(y[i], masks, closes, states, out[i])


@njit(cache=True, nogil=True)
def fill(stored: np.ndarray, masks: np.ndarray, closes: np.ndarray, negative: np.ndarray) -> None:
    """Fill `negative [rows, cols]` from the `stored` rows, in order, and the open checks of each column."""
    checks, at = np.zeros(negative.shape[1], np.uint8), 0
    for row in range(len(negative)):
        row_signs, mask = negative[row], np.uint8(masks[row])
        if closes[row]:
            for i in range(len(row_signs)):
                row_signs[i] = checks[i] & 1
                checks[i] = (checks[i] ^ row_signs[i] * mask) >> 1
        else:
            for i in range(len(row_signs)):
                row_signs[i] = stored[at, i]
                checks[i] ^= row_signs[i] * mask
            at += 1


@functools.lru_cache(maxsize=64)
def _list_check_masks(code: ParityCode, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Masks and closing rows of a column."""
    return np.array(code.masks(rows)), np.array([code.closes(row) for row in range(rows)])


def complete(stored: np.ndarray, code: ParityCode, rows: int) -> np.ndarray:
    """All signs, bool `[rows, cols]`; see `ParityCode.complete`."""
    negative = np.empty((rows, stored.shape[1]), np.uint8)
    fill(np.ascontiguousarray(stored).view(np.uint8), *_list_check_masks(code, rows), negative)
    return negative.view(np.bool_)


def find_nearest_signs(y: np.ndarray, code: ParityCode) -> np.ndarray:
    """Which signs are −1, bool `[cols, rows]`, for `y [rows, cols]`; see `parity_search.find_nearest_signs`."""
    out = np.empty(y.T.shape, np.bool_)
    turned, states = np.ascontiguousarray(y.T, np.float32), 1 << MEMORY
    masks, closes = _list_check_masks(code, len(y))
    if len(out) == 1:  # as error feedback asks, a column at a time: not worth waking threads
        _search_column(turned[0], masks, closes, states, out[0])
        return out
    with use_threads():
        _search_columns(turned, masks, closes, states, out)
    return out
