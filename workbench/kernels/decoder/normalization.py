"""RMS norm with the sum that comes before it."""

import numpy as np

from workbench.kernels.jit.cached_njit import compile_cached


@compile_cached(fastmath=True, error_model="numpy")
def add_and_normalize(x: np.ndarray, change: np.ndarray, weight: np.ndarray, epsilon: float, out: np.ndarray) -> None:
    """Add `change` to the residual stream `x [tokens, hidden]`, in place, and write its norm times `weight` to `out`."""
    for token in range(len(x)):
        total = np.float32(0)
        for i in range(x.shape[1]):
            x[token, i] += change[token, i]
            total += x[token, i] * x[token, i]
        factor = np.float32(1 / np.sqrt(total / x.shape[1] + epsilon))
        for i in range(x.shape[1]):
            out[token, i] = x[token, i] * factor * weight[i]


@compile_cached(fastmath=True, error_model="numpy")
def normalize(x: np.ndarray, weight: np.ndarray, epsilon: float, out: np.ndarray) -> None:
    """The norm of each row of `x [rows, width]` times `weight`, to `out`, which may be `x`."""
    for row in range(len(x)):
        total = np.float32(0)
        for i in range(x.shape[1]):
            total += x[row, i] * x[row, i]
        factor = np.float32(1 / np.sqrt(total / x.shape[1] + epsilon))
        for i in range(x.shape[1]):
            out[row, i] = x[row, i] * factor * weight[i]
