"""Matmuls with sparse matrices: the outliers that a mask separates."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from workbench.kernels.jit.cached_njit import compile_cached


@dataclass(frozen=True)
class Rows:
    """A sparse matrix by rows: row r has `value[start[r]:start[r + 1]]` in the columns `column[start[r]:start[r + 1]]`."""

    start: np.ndarray
    column: np.ndarray
    value: np.ndarray

    @property
    def bytes(self) -> int:
        """Bytes of all arrays."""
        return self.start.nbytes + self.column.nbytes + self.value.nbytes


def pack_rows(weights: Tensor, mask: Tensor) -> Rows:
    """The weights `[rows, cols]` at the true positions of a mask."""
    start = np.zeros(len(mask) + 1, np.int64)
    start[1:] = mask.sum(1).cumsum(0).numpy()
    narrow = np.uint16 if mask.shape[1] <= 1 << 16 else np.uint32
    return Rows(start, mask.nonzero()[:, 1].numpy().astype(narrow), weights[mask].numpy())


def count_sparse_bits(mask: Tensor) -> int:
    """Bits that `pack_rows` takes for a mask."""
    return int(mask.sum()) * (32 + (16 if mask.shape[1] <= 1 << 16 else 32)) + 64 * (len(mask) + 1)


@compile_cached(fastmath={"reassoc", "contract"})
def multiply_rows(x: np.ndarray, start: np.ndarray, column: np.ndarray, value: np.ndarray, y: np.ndarray) -> None:
    """y = x Wᵀ for `x [inputs, cols]`, `y [inputs, rows]`."""
    for row in range(len(start) - 1):
        for i in range(len(x)):
            total = np.float32(0)
            for k in range(start[row], start[row + 1]):
                total += value[k] * x[i, column[k]]
            y[i, row] = total
