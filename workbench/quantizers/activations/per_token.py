"""Activations `per-token`: inputs rounded to integers, each token by its own largest magnitude, at run time."""

from dataclasses import dataclass

from workbench.kernels.formats.rounding import ROUNDED
from workbench.kernels.packing.packed import Packed
from workbench.quantizers.contract import Activations
from workbench.recipe import setting
from workbench.registry import register


@register("activations", "per-token")
@dataclass(frozen=True)
class RoundPerToken(Activations):
    """Symmetric integers with one dynamic scale a token, as in QuaRot (arXiv 2404.00456) without its clipping.

    Nothing is stored for it. A layer's reported errors are those of its weights; the rounding shows in what the model says.
    """

    bits: int = setting(8, "bits per activation", low=4, high=8)

    def pack(self, inner: Packed) -> Packed:
        """Format `rounded-input`."""
        return Packed(ROUNDED, inner.rows, inner.cols, facts={"bits": self.bits}, children=(inner,))
