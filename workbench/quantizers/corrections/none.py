"""Correction `none`: the coded matrix is not changed."""

from dataclasses import dataclass

from torch import Tensor

from workbench.kernels.packing.packed import Packed
from workbench.quantizers.contract import Correction
from workbench.registry import register


@register("correction", "none")
@dataclass(frozen=True)
class NoCorrection(Correction):
    """Adds and stores nothing."""

    def fit(self, error: Tensor, moment: Tensor | None) -> Packed | None:
        """None."""
        return None
