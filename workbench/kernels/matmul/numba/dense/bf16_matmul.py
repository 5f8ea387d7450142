"""Matmuls with a matrix of bfloat16 numbers as it is stored: output heads, where few inputs meet many rows.

A bfloat16 is the upper half of a float32, so that widening it is exact and costs a shift.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numba import prange
from torch import Tensor

from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.jit.exponential import bits_to_float
from workbench.kernels.jit.threads import needs_threads, use_threads

BLOCK_ROWS = 64  # that a thread takes at a time


@dataclass(frozen=True)
class BFloats:
    """`values [rows, cols]`: the bits of bfloat16 numbers, in the memory of the tensor that they come from."""

    values: np.ndarray

    @property
    def bytes(self) -> int:
        """Nothing is held beside the stored tensor."""
        return 0

    def __call__(self, x: Tensor) -> Tensor:
        """x Wᵀ for float32 `x [n, cols]`."""
        y = np.empty((len(x), len(self.values)), np.float32)
        if needs_threads(self.values.size * len(x)):
            with use_threads():
                multiply_parallel(x.numpy(), self.values, y)
        else:
            multiply_serial(x.numpy(), self.values, y)
        return torch.from_numpy(y)


def wrap_bf16(weight: Tensor) -> BFloats:
    """The product with a contiguous bfloat16 tensor `[rows, cols]`."""
    return BFloats(weight.view(torch.int16).numpy().view(np.uint16))


@compile_cached(fastmath=True, error_model="numpy")
def multiply(x: np.ndarray, values: np.ndarray, to: int, y: np.ndarray) -> None:
    """The rows of `values` into the columns of `y [inputs, rows]` from `to` on."""
    for row in range(len(values)):
        for i in range(len(x)):
            total = np.float32(0)
            for column in range(values.shape[1]):
                total += x[i, column] * bits_to_float(np.int32(values[row, column]) << np.int32(16))
            y[i, to + row] = total


@compile_cached
def multiply_serial(x: np.ndarray, values: np.ndarray, y: np.ndarray) -> None:
    """y = x Wᵀ on this thread alone."""
    multiply(x, values, 0, y)


@compile_cached(parallel=True)
def multiply_parallel(x: np.ndarray, values: np.ndarray, y: np.ndarray) -> None:
    """y = x Wᵀ on all threads."""
    for block in prange((len(values) + BLOCK_ROWS - 1) // BLOCK_ROWS):
        first, last = block * BLOCK_ROWS, min(len(values), (block + 1) * BLOCK_ROWS)
        multiply(x, values[first:last], first, y)
