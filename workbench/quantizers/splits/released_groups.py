"""Split `released-groups`: salient columns and magnitude groups as in the released codes of BiLLM, ARB-LLM and STBLLM."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from workbench.kernels.packing.packed import Packed
from workbench.quantizers.coders.fitting.released_planes import alternate
from workbench.quantizers.contract import BlockSplit
from workbench.quantizers.curvature import compute_inverse_factor
from workbench.quantizers.splits.fitting.released_search import (
    search_one_plane_limits,
    search_output_limit,
    search_two_plane_limit,
    select_salient_columns,
)
from workbench.quantizers.splits.fitting.weight_saliency import DAMPING
from workbench.quantizers.splits.magnitude_groups import pack_groups
from workbench.recipe import setting
from workbench.registry import register

RELEASED_GROUP_SHARES = {2: (0.85, 0.15), 3: (0.6, 0.25, 0.15)}  # shares of the groups of squared normal weights
SALIENT_SHARE = 0.1  # share of the columns that is usually found salient


@dataclass(frozen=True)
class ColumnSaliency:
    """`saliency [cols]`: 1/U_jj², and `moment [cols, cols]` where it is the loss; float64."""

    saliency: Tensor
    moment: Tensor | None = None

    def select(self, columns: slice) -> Self:
        """The same for some of the columns; of a moment it is their own square."""
        return type(self)(self.saliency[columns], None if self.moment is None else self.moment[columns, columns])


@register("split", "released-groups")
@dataclass(frozen=True)
class ReleasedGroups(BlockSplit[ColumnSaliency]):
    """Masks in this order: `groups` by ascending saliency w²/U_jj², salient columns (one or two groups).

    The released codes search on these saliencies where the papers speak of weights, and `groups` does. Two groups are the bell
    split of BiLLM (arXiv 2402.04291) and ARB-LLM (arXiv 2410.03129), three are STBLLM's (arXiv 2408.01803).
    """

    fixed_shares: ClassVar[bool] = False
    groups: int = setting(2, "groups by saliency; the map takes one bit per weight, or two for three groups", low=2, high=3)
    salient: int = setting(50, "upper limit (exclusive) of salient columns per block", low=2, high=1024)
    salient_groups: int = setting(1, "groups inside salient columns", low=1, high=2)
    loss: str = setting(
        "plain",
        "objective for two groups: saliencies, or saliencies under the second moment (ARB-X)",
        choices=("plain", "moment"),
    )
    block: int = setting(128, "columns that are split together", low=1, high=65536)

    @property
    def needs_moment(self) -> bool:
        """Saliencies do."""
        return True

    @property
    def shares(self) -> tuple[float, ...]:
        """Of normal weights, and a tenth of the columns salient, or as many as may be."""
        salient = min(SALIENT_SHARE, (self.salient - 1) / self.block)
        apart = RELEASED_GROUP_SHARES[2] if self.salient_groups == 2 else (1.0,)
        return (*(share * (1 - salient) for share in RELEASED_GROUP_SHARES[self.groups]), *(share * salient for share in apart))

    def columns(self, moment: Tensor | None, cols: int) -> ColumnSaliency:
        """From the second moment."""
        assert moment is not None
        saliency = compute_inverse_factor(moment, DAMPING).diagonal().square().reciprocal()
        return ColumnSaliency(saliency, moment.double() if self.loss == "moment" else None)

    def block_masks(self, w: Tensor, columns: ColumnSaliency) -> list[Tensor]:
        """The masks of one block."""
        score = w.double().square() * columns.saliency
        salient = select_salient_columns(score, self.salient)
        inside = salient.expand_as(score)
        if columns.moment is not None and self.groups == 2:
            apart = alternate(score, inside, 2).values(inside)
            limits = [search_output_limit(score, ~inside, apart, columns.moment)]
        else:
            limits = search_one_plane_limits(score, ~inside, self.groups)
        groups = [*cut(score, ~inside, limits), inside.clone()]
        if self.salient_groups == 2:
            groups[-1:] = cut(score, inside, [search_two_plane_limit(score[:, salient])])
        return groups

    def pack(self, masks: Sequence[Tensor], children: Sequence[Packed]) -> Packed:
        """Maps inside maps: salient columns, groups; each is stored only where the maps around it point."""
        return pack_groups(masks, children, self.groups)


def cut(score: Tensor, mask: Tensor, limits: Sequence[Tensor]) -> list[Tensor]:
    """The masked scores below the first of the ascending limits, between them, and from the last one on."""
    number = torch.bucketize(score, torch.stack(list(limits)), right=True)
    return [mask & (number == group) for group in range(len(limits) + 1)]
