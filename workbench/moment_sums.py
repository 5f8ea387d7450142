"""Second moments accumulated in place: that of a wide layer fills the memory, so no copy is made."""

import torch
from torch import Tensor

WIDE = 4096  # columns above which sums are float32
ROWS_AT_ONCE = 512  # of a sum that are worked on at a time


def choose_sum_dtype(cols: int) -> torch.dtype:
    """The type in which second moments of `cols` inputs are summed: very wide ones in float32, since they fill the memory."""
    return torch.float64 if cols <= WIDE else torch.float32


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add leftᵀ right of two float32 inputs `[tokens, cols]` to `total [cols, cols]` in place; products are float32."""
    for start in range(0, len(total), ROWS_AT_ONCE):
        total[start : start + ROWS_AT_ONCE] += left[:, start : start + ROWS_AT_ONCE].mT @ right


def compute_symmetric_mean(total: Tensor, count: int) -> Tensor:
    """A sum `[cols, cols]` over its `count`, float32 and exactly symmetric; a sum in float32 becomes its mean in place."""
    mean = total if total.dtype == torch.float32 else torch.empty(total.shape)
    for start in range(0, len(total), ROWS_AT_ONCE):
        for other in range(0, start + 1, ROWS_AT_ONCE):
            rows, columns = slice(start, start + ROWS_AT_ONCE), slice(other, other + ROWS_AT_ONCE)
            piece = (total[rows, columns] + total[columns, rows].mT) / (2 * count)
            mean[rows, columns], mean[columns, rows] = piece, piece.mT
    return mean
