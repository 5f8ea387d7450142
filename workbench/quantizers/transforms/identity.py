"""Transform `identity`: no change of basis."""

from dataclasses import dataclass

from torch import Tensor

from workbench.kernels.packing.packed import Packed
from workbench.quantizers.contract import Params, Transform
from workbench.registry import register


@register("transform", "identity")
@dataclass(frozen=True)
class Identity(Transform):
    """No change of basis; nothing is stored."""

    def fit(self, w: Tensor, moment: Tensor | None, seed: int) -> Params:
        """Nothing to find out."""
        return {}

    def forward(self, w: Tensor, state: Params) -> Tensor:
        """W."""
        return w

    def moment(self, moment: Tensor, state: Params) -> Tensor:
        """H."""
        return moment

    def pack(self, inner: Packed, state: Params) -> Packed:
        """The inner form alone."""
        return inner
