"""Activations `keep`: inputs are not quantized."""

from dataclasses import dataclass

from workbench.kernels.packing.packed import Packed
from workbench.quantizers.contract import Activations
from workbench.registry import register


@register("activations", "keep")
@dataclass(frozen=True)
class KeepActivations(Activations):
    """Changes nothing (W·A16 in papers)."""

    def pack(self, inner: Packed) -> Packed:
        """The inner form alone."""
        return inner
