"""Transform `hadamard`: random signs and an orthonormal Hadamard matrix, which spread outliers evenly over columns."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.kernels.formats.transforms import hadamard
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.quantizers.contract import Params, Transform
from workbench.registry import register


@register("transform", "hadamard")
@dataclass(frozen=True)
class RandomizedHadamard(Transform):
    """W D H with random signs D and an orthonormal H of any width: outliers are spread over all columns.

    The incoherence processing of QuIP# (arXiv 2402.04396) on the input side only. The signs are drawn from the recipe's
    seed, so layers that read the same input share them.
    """

    def fit(self, w: Tensor, moment: Tensor | None, seed: int) -> Params:
        """`signs`: ±1 `[cols]`."""
        drawn = torch.randint(2, (w.shape[1],), generator=torch.Generator().manual_seed(seed))
        return {"signs": drawn.to(torch.float32) * 2 - 1}

    def forward(self, w: Tensor, state: Params) -> Tensor:
        """W D H."""
        return hadamard(w, state["signs"])

    def moment(self, moment: Tensor, state: Params) -> Tensor:
        """Hᵀ D M D H, M being the second moment."""
        return hadamard(hadamard(moment, state["signs"]).mT, state["signs"])

    def pack(self, inner: Packed, state: Params) -> Packed:
        """Format `hadamard`."""
        return Packed("hadamard", inner.rows, inner.cols, {"signs": bitpack.pack(state["signs"] > 0, 1)}, children=(inner,))
