"""Coder `zero`: pruned weights, for which nothing is stored."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.kernels.packing.packed import Packed
from workbench.quantizers.contract import Fit, UnsharedCoder
from workbench.registry import register


@register("coder", "zero")
@dataclass(frozen=True)
class Zero(UnsharedCoder[None]):
    """Every weight becomes zero."""

    @property
    def nominal_bits(self) -> float:
        """None."""
        return 0.0

    def span(self, cols: int) -> int:
        """The whole row."""
        return cols

    def fit(self, w: Tensor, mask: Tensor, shared: None, moment: Tensor | None) -> Fit[None]:
        """Nothing to find out."""
        return Fit(None)

    def encode(self, w: Tensor, params: None, columns: slice) -> Tensor:
        """One code for all."""
        return torch.zeros_like(w, dtype=torch.uint8)

    def decode(self, codes: Tensor, params: None, columns: slice) -> Tensor:
        """Zeros."""
        return codes.float()

    def pack(self, codes: Tensor, params: list[None], mask: Tensor | None, shape: tuple[int, int]) -> Packed:
        """Format `zero`."""
        return Packed("zero", *shape)
