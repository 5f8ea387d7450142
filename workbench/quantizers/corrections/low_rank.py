"""Correction `low-rank`: two thin matrices that remove the largest part of the error."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.kernels.packing.packed import Packed
from workbench.quantizers.contract import Correction
from workbench.quantizers.curvature import compute_lower_factor
from workbench.quantizers.storage_rounding import round_to_fp16
from workbench.recipe import setting
from workbench.registry import register


@register("correction", "low-rank")
@dataclass(frozen=True)
class LowRank(Correction):
    """The best rank-r approximation of the error E under tr(· H ·ᵀ), in fp16.

    With H = L Lᵀ the best one is the truncated SVD of E L, times L⁻¹ (EoRA, arXiv 2410.21271, with a Cholesky factor for the
    eigen-root, which gives the same product). Without calibration it is the plain SVD (LoRC, arXiv 2303.08302).
    """

    rank: int = setting(8, "columns of the thin factors; at most the smaller side of the matrix is used", low=1, high=65536)
    damping: float = setting(0.001, "damping of the second moment, relative to its mean diagonal", low=0.0, high=10.0)

    def fit(self, error: Tensor, moment: Tensor | None) -> Packed | None:
        """Format `low-rank`."""
        rows, cols = error.shape
        root = None
        if moment is not None:
            root = compute_lower_factor(moment, self.damping)
            root = (root / root.square().sum().div(cols).sqrt()).to(error.dtype)  # its size cancels; 1 keeps fp16 in range
        u, s, vt = torch.linalg.svd(error if root is None else error @ root, full_matrices=False)
        rank = min(self.rank, rows, cols)
        half = s[:rank].sqrt()
        left, right = u[:, :rank] * half, half[:, None] * vt[:rank]
        if root is not None:
            right = torch.linalg.solve_triangular(root, right, upper=False, left=False)
        return Packed("low-rank", rows, cols, {"left": round_to_fp16(left).half(), "right": round_to_fp16(right).half()})
