"""Transform `hadamard`: random signs and an orthonormal Hadamard matrix, which spread outliers evenly over columns."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.kernels.formats.transforms import hadamard
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.quantizers.contract import State, Transform
from workbench.registry import register


@dataclass(frozen=True)
class Signs(State):
    """`signs [cols]`: ±1, the diagonal of D."""

    signs: Tensor


@register("transform", "hadamard")
@dataclass(frozen=True)
class RandomizedHadamard(Transform[Signs]):
    """W D H with random signs D and an orthonormal H of any width: outliers are spread over all columns.

    The incoherence processing of QuIP# (arXiv 2402.04396) on the input side only. The signs are drawn from the recipe's
    seed, so layers that read the same input share them.
    """

    def fit(self, w: Tensor, moment: Tensor | None, seed: int) -> Signs:
        """Drawn by `seed`."""
        drawn = torch.randint(2, (w.shape[1],), generator=torch.Generator().manual_seed(seed))
        return Signs(drawn.to(torch.float32) * 2 - 1)

    def read_state(self, tensors: Mapping[str, Tensor]) -> Signs:
        """The state that has these tensors."""
        return Signs(**tensors)

    def forward(self, w: Tensor, state: Signs) -> Tensor:
        """W D H."""
        return hadamard(w, state.signs)

    def moment(self, moment: Tensor, state: Signs) -> Tensor:
        """Hᵀ D M D H, M being the second moment."""
        return hadamard(hadamard(moment, state.signs).mT, state.signs)

    def pack(self, inner: Packed, state: Signs) -> Packed:
        """Format `hadamard`."""
        return Packed("hadamard", inner.rows, inner.cols, {"signs": bitpack.pack(state.signs > 0, 1)}, children=(inner,))
