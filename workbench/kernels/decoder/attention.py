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
def attend_with_head(
    query: np.ndarray, keys: np.ndarray, values: np.ndarray, count: int, scale: float, scores: np.ndarray, out: np.ndarray
) -> None:
    """softmax(query · keys · scale) · values over `count` tokens, for one head of queries and one of keys."""
    width = len(query)
    for token in range(count):
        scores[token] = 0
    for i in range(0, width, 2):  # two at a time: half as many passes over the scores
        first, second = query[i] * scale, query[i + 1] * scale
        for token in range(count):
            scores[token] += first * keys[i, token] + second * keys[i + 1, token]
    largest = np.float32(-np.inf)
    for token in range(count):
        largest = max(largest, scores[token])
    total = np.float32(0)
    for token in range(count):
        scores[token] = compute_exponential(scores[token] - largest)
        total += scores[token]
    for i in range(width):
        out[i] = 0
    for token in range(count):
        share = scores[token] / total
        for i in range(width):
            out[i] += share * values[token, i]


@compile_cached
def attend_serial(
    query: np.ndarray, keys: np.ndarray, values: np.ndarray, count: int, scale: float, scores: np.ndarray, out: np.ndarray
) -> None:
    """Attention of `query [heads, width]` to the first `count` tokens, on this thread; `scores [heads, ≥ count]` is scratch."""
    group = len(query) // len(keys)
    for head in range(len(query)):
        key_head = head // group
        attend_with_head(query[head], keys[key_head], values[key_head], count, scale, scores[head], out[head])


@compile_cached(parallel=True)
def attend_parallel(
    query: np.ndarray, keys: np.ndarray, values: np.ndarray, count: int, scale: float, scores: np.ndarray, out: np.ndarray
) -> None:
    """The same on all threads, which share the heads."""
    group = len(query) // len(keys)
    for head in prange(len(query)):
        key_head = head // group
        attend_with_head(query[head], keys[key_head], values[key_head], count, scale, scores[head], out[head])
