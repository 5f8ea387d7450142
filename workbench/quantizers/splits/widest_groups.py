"""Split `widest-groups`: groups of neighbouring weights with the widest range, and the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.part_settings import make_group_setting
from workbench.quantizers.coders.fitting.column_groups import compute_group_span
from workbench.quantizers.contract import Split
from workbench.recipe import setting
from workbench.registry import register


@register("split", "widest-groups")
@dataclass(frozen=True)
class WidestGroups(Split):
    """Masks: the rest, then the `share` of groups, over the whole matrix, whose max − min is largest (arXiv 2311.16442).

    One bit a group is stored.
    """

    fixed_shares: ClassVar[bool] = False  # the last group of a row may be shorter

    share: float = setting(0.25, "share of wide groups", low=0.0, high=1.0)
    group: int = make_group_setting(64)

    def masks(self, w: Tensor, moment: Tensor | None) -> list[Tensor]:
        """[rest, wide]."""
        span = compute_group_span(self.group, w.shape[1])
        ranges = torch.stack([part.amax(1) - part.amin(1) for part in w.split(span, dim=1)], 1)
        wide = torch.zeros(ranges.numel(), dtype=torch.bool)
        wide[torch.argsort(ranges.reshape(-1), descending=True, stable=True)[: round(self.share * ranges.numel())]] = True
        mask = wide.view_as(ranges).repeat_interleave(span, 1)[:, : w.shape[1]]
        return [~mask, mask]

    @property
    def shares(self) -> tuple[float, ...]:
        """As set."""
        return (1 - self.share, self.share)

    def pack(self, masks: Sequence[Tensor], children: Sequence[Packed]) -> Packed:
        """Format `masked` with one flag a group."""
        rows, cols = masks[0].shape
        span = compute_group_span(self.group, cols)
        return Packed(
            "masked",
            rows,
            cols,
            {"map": bitpack.pack(masks[1][:, ::span], 1)},
            {"map": "groups", "span": span},
            tuple(children),
        )
