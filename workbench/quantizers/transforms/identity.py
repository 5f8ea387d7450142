"""Transform `identity`: no change of basis."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from workbench.kernels.packing.packed import Packed
from workbench.quantizers.contract import State, Transform
from workbench.registry import register


@register("transform", "identity")
@dataclass(frozen=True)
class Identity(Transform[State]):
    """No change of basis; nothing is stored."""

    def fit(self, w: Tensor, moment: Tensor | None, seed: int) -> State:
        """Nothing to find out."""
        return State()

    def read_state(self, tensors: Mapping[str, Tensor]) -> State:
        """The state that has these tensors."""
        return State(**tensors)

    def forward(self, w: Tensor, state: State) -> Tensor:
        """W."""
        return w

    def moment(self, moment: Tensor, state: State) -> Tensor:
        """H."""
        return moment

    def pack(self, inner: Packed, state: State) -> Packed:
        """The inner form alone."""
        return inner
