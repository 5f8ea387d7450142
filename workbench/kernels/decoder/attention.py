"""Rotary positions, and attention of one new token to all tokens that were read.

Keys are `[heads of keys, width, capacity]` in float32, so that the scores of neighbouring tokens are computed side by side, and
values `[heads of keys, capacity, width]`. Query head h looks at the key head h // (heads / heads of keys).
"""

import numpy as np
from numba import prange

from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.jit.exponential import compute_exponential


@compile_cached(fastmath=True, error_model="numpy")
def rotate(heads: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> None:
    """Turn each pair (i, i + width / 2) of `heads [tokens, heads, width]` by its token's angle, in place."""
    half = heads.shape[2] // 2
    for token in range(heads.shape[0]):
        for head in range(heads.shape[1]):
            for i in range(half):
                a, b = heads[token, head, i], heads[token, head, i + half]
                heads[token, head, i] = a * cos[token, i] - b * sin[token, i]
                heads[token, head, i + half] = b * cos[token, i + half] + a * sin[token, i + half]


@compile_cached
def append(new_keys: np.ndarray, new_values: np.ndarray, first: int, keys: np.ndarray, values: np.ndarray) -> None:
    """Write keys and values of new tokens, `[tokens, heads, width]`, into those that are kept, from place `first` on."""
    for token in range(new_keys.shape[0]):
        for head in range(new_keys.shape[1]):
            for i in range(new_keys.shape[2]):
                keys[head, i, first + token] = new_keys[token, head, i]
                values[head, first + token, i] = new_values[token, head, i]


@compile_cached(fastmath=True, error_model="numpy")
def attend_with_group(
    query: np.ndarray, keys: np.ndarray, values: np.ndarray, count: int, scale: float, scores: np.ndarray, out: np.ndarray
) -> None:
    """softmax(query · keys · scale) · values over `count` tokens, for the heads of queries that share one head of keys.

    The heads take turns within each row of keys and of values, which so comes from memory once.
    """
    heads, width = query.shape
    scores[:, :count] = 0
    for i in range(0, width, 2):  # two rows at a time: half as many passes over the scores
        for head in range(heads):
            first, second = query[head, i] * scale, query[head, i + 1] * scale
            for token in range(count):
                scores[head, token] += first * keys[i, token] + second * keys[i + 1, token]
    for head in range(heads):
        largest, total = np.float32(-np.inf), np.float32(0)
        for token in range(count):
            largest = max(largest, scores[head, token])
        for token in range(count):
            weight = compute_exponential(scores[head, token] - largest)
            scores[head, token] = weight
            total += weight
        for token in range(count):
            scores[head, token] /= total
    out[:] = 0
    for token in range(count):
        for head in range(heads):
            share = scores[head, token]
            for i in range(width):
                out[head, i] += share * values[token, i]


@compile_cached
def attend_serial(
    query: np.ndarray, keys: np.ndarray, values: np.ndarray, count: int, scale: float, scores: np.ndarray, out: np.ndarray
) -> None:
    """Attention of `query [heads, width]` to the first `count` tokens, on this thread; `scores [heads, ≥ count]` is scratch."""
    group = len(query) // len(keys)
    for head in range(len(keys)):
        first, last = head * group, (head + 1) * group
        attend_with_group(query[first:last], keys[head], values[head], count, scale, scores[first:last], out[first:last])


@compile_cached(parallel=True)
def attend_parallel(
    query: np.ndarray, keys: np.ndarray, values: np.ndarray, count: int, scale: float, scores: np.ndarray, out: np.ndarray
) -> None:
    """The same on all threads, which share the heads of keys."""
    group = len(query) // len(keys)
    for head in prange(len(keys)):
        first, last = head * group, (head + 1) * group
        attend_with_group(query[first:last], keys[head], values[head], count, scale, scores[first:last], out[first:last])
