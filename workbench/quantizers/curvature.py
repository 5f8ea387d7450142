"""The curvature of a layer's output error: its second moment made safely invertible, and factors of the inverse.

tr(E H Eᵀ) is the output energy that an error E costs; GPTQ (arXiv 2210.17323) and its family work with the upper factor U of
H⁻¹ = Uᵀ U, whose row j says how an error in column j is best repaired by the columns after it.
"""

import torch
from torch import Tensor

from workbench.errors import ShapeError


def damped(moment: Tensor, damping: float) -> Tensor:
    """H + damping · mean(diag H) · I in float64; the identity where nothing was measured (an all-zero moment)."""
    h = moment.to(torch.float64)
    h = (h + h.mT).div_(2)  # sums in float32 leave it a little asymmetric
    level = h.diagonal().mean()
    if level <= 0:
        return torch.eye(len(h), dtype=torch.float64)
    h.diagonal().add_(damping * level)  # in place: a wide moment fills the memory
    return h


def lower_factor(moment: Tensor, damping: float) -> Tensor:
    """The lower triangular L with L Lᵀ = damped H, float64; ShapeError when H is singular at this damping."""
    factor, failed = torch.linalg.cholesky_ex(damped(moment, damping))
    if failed:
        raise ShapeError(
            f"the second moment of {len(moment)} columns is singular at damping {damping}; "
            "use a larger damping (0.01 is usual) or calibrate on more tokens."
        )
    return factor


def inverse_factor(moment: Tensor, damping: float) -> Tensor:
    """The upper triangular U with Uᵀ U = (damped H)⁻¹, float64 `[cols, cols]`.

    With columns in reverse order H = L Lᵀ; reversed back, L is upper triangular and U its inverse. This costs one
    factorisation and one triangular inverse, and never forms H⁻¹.
    """
    reverse = lower_factor(moment.flip(0, 1), damping).flip(0, 1)
    return torch.linalg.solve_triangular(reverse, torch.eye(len(moment), dtype=torch.float64), upper=True)
