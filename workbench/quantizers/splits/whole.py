"""Split `whole`: one coder for every weight."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.kernels.packing.packed import Packed
from workbench.quantizers.contract import Split
from workbench.registry import register


@register("split", "whole")
@dataclass(frozen=True)
class Whole(Split):
    """One mask that is true everywhere; no map is stored."""

    def masks(self, w: Tensor, moment: Tensor | None) -> list[Tensor]:
        """Every weight."""
        return [torch.ones_like(w, dtype=torch.bool)]

    @property
    def shares(self) -> tuple[float, ...]:
        """Everything."""
        return (1.0,)

    def pack(self, masks: Sequence[Tensor], children: Sequence[Packed]) -> Packed:
        """The only child."""
        return children[0]
