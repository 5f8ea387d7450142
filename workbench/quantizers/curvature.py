"""The curvature of a layer's output error: its second moment made safely invertible, and factors of the inverse.

tr(E H Eᵀ) is the output energy that an error E costs; GPTQ (arXiv 2210.17323) and its family work with the upper factor U of
H⁻¹ = Uᵀ U, whose row j says how an error in column j is best repaired by the columns after it.
"""

import torch
from torch import Tensor

from workbench.errors import ShapeError

ROWS_AT_ONCE = 512  # of a matrix that are worked on at a time: a wide one fills the memory, and is changed in place


def damp_moment(moment: Tensor, damping: float) -> Tensor:
    """H + damping · mean(diag H) · I in float64; the identity where nothing was measured (an all-zero moment)."""
    h = torch.empty(moment.shape, dtype=torch.float64)
    for start in range(0, len(h), ROWS_AT_ONCE):
        rows = slice(start, start + ROWS_AT_ONCE)
        h[rows] = moment[rows]
        h[rows] += moment[:, rows].mT  # sums in float32 leave it a little asymmetric
    h.div_(2)
    level = h.diagonal().mean()
    if level <= 0:
        return torch.eye(len(h), dtype=torch.float64)
    h.diagonal().add_(damping * level)
    return h


def compute_lower_factor(moment: Tensor, damping: float) -> Tensor:
    """The lower triangular L with L Lᵀ = damped H, float64; ShapeError when H is singular at this damping."""
    return factorize(damp_moment(moment, damping), damping)


def factorize(h: Tensor, damping: float) -> Tensor:
    """The lower triangular L with L Lᵀ = H, in the memory of H, which was `damping` made safe."""
    # the transpose of a symmetric matrix is itself, and as LAPACK wants it
    factor, failed = torch.linalg.cholesky_ex(h.mT, out=(h.mT, torch.empty((), dtype=torch.int32)))
    if failed:
        raise ShapeError(
            f"the second moment of {len(h)} columns is singular at damping {damping}; "
            "use a larger damping (0.01 is usual) or calibrate on more tokens."
        )
    return factor


def compute_inverse_factor(moment: Tensor, damping: float) -> Tensor:
    """The upper triangular U with Uᵀ U = (damped H)⁻¹, float64 `[cols, cols]`.

    With columns in reverse order H = L Lᵀ; U is the inverse of L, reversed back. This costs one factorisation and one triangular
    inverse, never forms H⁻¹, and takes the memory of one matrix.
    """
    h = damp_moment(moment, damping)
    reverse(h)
    factor = factorize(h, damping)
    _invert_lower(factor)
    reverse(factor.mT)
    return factor


def reverse(matrix: Tensor) -> None:
    """Put rows and columns of a contiguous matrix in reverse order, in place."""
    values = matrix.view(-1)
    for start in range(0, len(values) // 2, ROWS_AT_ONCE * ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE * ROWS_AT_ONCE, len(values) // 2)
        front, back = values[start:stop], values[len(values) - stop : len(values) - start]
        earlier = front.flip(0)
        front.copy_(back.flip(0))
        back.copy_(earlier)


def _invert_lower(factor: Tensor) -> None:
    """Put the inverse of a lower triangular matrix in its place, some columns at a time, from the last ones on."""
    for start in reversed(range(0, len(factor), ROWS_AT_ONCE)):
        stop = min(start + ROWS_AT_ONCE, len(factor))
        corner, below = factor[start:stop, start:stop], factor[stop:, start:stop]
        corner.copy_(torch.linalg.solve_triangular(corner, torch.eye(stop - start, dtype=factor.dtype), upper=False))
        below.copy_(factor[stop:, stop:] @ (below @ corner)).neg_()
