"""Split `groups`: block by block into pruned weights, magnitude groups and salient columns, as BiLLM and its successors do."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from workbench.errors import RecipeError
from workbench.kernels.formats.codebook import compute_index_width
from workbench.kernels.packing import bitpack, n_of_m
from workbench.kernels.packing.packed import Packed
from workbench.part_settings import GROUP_SEARCHES, METRICS
from workbench.quantizers.contract import BlockSplit
from workbench.quantizers.curvature import compute_inverse_factor
from workbench.quantizers.splits.fitting.magnitude_thresholds import search_thresholds, split_by_size
from workbench.quantizers.splits.fitting.salient_search import select_salient_columns
from workbench.quantizers.splits.fitting.weight_saliency import DAMPING
from workbench.recipe import setting
from workbench.registry import register

GROUP_SHARES = {1: (1.0,), 2: (0.67, 0.33), 3: (0.49, 0.36, 0.15)}  # shares of the groups of normal weights
SALIENT_SHARE = 0.1  # share of the columns that is usually found salient


@dataclass(frozen=True)
class ColumnWeights:
    """`saliency [cols]`: 1/U_jj² (see `weight_saliency`), `energy [cols]`: E x_j²; ones without a moment."""

    saliency: Tensor
    energy: Tensor

    def select(self, columns: slice) -> Self:
        """The same for some of the columns."""
        return type(self)(self.saliency[columns], self.energy[columns])


@register("split", "groups")
@dataclass(frozen=True)
class Groups(BlockSplit[ColumnWeights]):
    """Masks in this order: pruned (when `kept` < `of`), `groups` by ascending magnitude, salient columns (one or two groups).

    Salient columns and their number are searched in each block (BiLLM, arXiv 2402.04291), thresholds too; `salient_groups`
    2 is the column-group bitmap of ARB-LLM (arXiv 2410.03129); N:M pruning by the relative importance of STBLLM
    (arXiv 2408.01803), with means where it has sums. Searches run on weights, where the released codes search on saliencies.
    """

    fixed_shares: ClassVar[bool] = False
    groups: int = setting(2, "groups by magnitude; the map takes one bit per weight, or two for three groups", low=1, high=3)
    search: str = setting("joint", "search for three groups", choices=GROUP_SEARCHES)
    salient: int = setting(0, "upper limit (exclusive) of salient columns per block; 0 is none", low=0, high=1024)
    salient_groups: int = setting(1, "groups by magnitude inside salient columns", low=1, high=2)
    metric: str = setting("magnitude", "measure of saliency, summed over a column", choices=METRICS)
    kept: int = setting(8, "weights kept out of every `of` in a row; the others become zero", low=1, high=16)
    of: int = setting(8, "group size, out of which `kept` weights are kept", low=1, high=16)
    block: int = setting(128, "columns that are split together", low=1, high=65536)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kept > self.of:
            raise RecipeError(f"split 'groups': {self.kept} of {self.of} weights cannot be kept; use at most kept={self.of}.")
        if self.pruned and self.block % self.of:
            raise RecipeError(f"split 'groups': a block of {self.block} columns does not hold whole groups of {self.of}.")

    @property
    def needs_moment(self) -> bool:
        """Only the Hessian metric does, where columns are ranked."""
        return self.metric == "hessian" and self.salient > 0

    @property
    def pruned(self) -> int:
        """Masks of pruned weights: one or none."""
        return int(self.kept < self.of)

    @property
    def shares(self) -> tuple[float, ...]:
        """Of normal weights, and a tenth of the columns salient, or as many as may be."""
        kept_share, salient = self.kept / self.of, min(SALIENT_SHARE, max(self.salient - 1, 0) / self.block)
        apart = [share * salient * kept_share for share in GROUP_SHARES[self.salient_groups]] if self.salient else []
        pruned = [1 - kept_share] if self.pruned else []
        return (*pruned, *(share * (1 - salient) * kept_share for share in GROUP_SHARES[self.groups]), *apart)

    def columns(self, moment: Tensor | None, cols: int) -> ColumnWeights:
        """From the second moment."""
        one = torch.ones(cols)
        if moment is None:
            return ColumnWeights(one, one)
        pivots = compute_inverse_factor(moment, DAMPING).diagonal() if self.needs_moment else one
        return ColumnWeights(pivots.square().reciprocal().float(), moment.diagonal())

    def block_masks(self, w: Tensor, columns: ColumnWeights) -> list[Tensor]:
        """The masks of one block."""
        kept_mask = choose(w, columns.energy, self.kept, self.of)
        salient = torch.zeros(w.shape[1], dtype=torch.bool)
        if self.salient:
            score = w.square() * columns.saliency if self.metric == "hessian" else w.abs()
            salient = select_salient_columns(w * kept_mask, (score * kept_mask).sum(0), self.salient)
        masks = [~kept_mask] if self.pruned else []
        size = w.abs()
        for part, groups in ((kept_mask & ~salient, self.groups), (kept_mask & salient, self.salient_groups)):
            masks += split_by_size(size, part, search_thresholds(size, part, groups, self.search))
        return masks if self.salient else masks[: -self.salient_groups]

    def pack(self, masks: Sequence[Tensor], children: Sequence[Packed]) -> Packed:
        """Maps inside maps: kept weights, salient columns, groups; each is stored only where the maps around it point."""
        first, (rows, cols) = self.pruned, masks[0].shape
        inner = pack_groups(masks[first:], children[first:], self.groups)
        if self.pruned:
            facts = {"map": "n-of-m", "n": self.kept, "m": self.of}
            stream = n_of_m.pack(~masks[0], self.kept, self.of)
            inner = Packed("masked", rows, cols, {"map": stream}, facts, (children[0], inner))
        return inner


def pack_groups(masks: Sequence[Tensor], children: Sequence[Packed], groups: int) -> Packed:
    """The first `groups` with a map of their numbers; where there are more, those with theirs, and the columns that hold them."""
    inner = _pack_bitmap(masks[:groups], children[:groups])
    if len(masks) == groups:
        return inner
    apart, (rows, cols) = _pack_bitmap(masks[groups:], children[groups:]), masks[0].shape
    flags = torch.stack(list(masks[groups:])).any(0).any(0)
    return Packed("masked", rows, cols, {"map": bitpack.pack(flags, 1)}, {"map": "columns"}, (inner, apart))


def choose(w: Tensor, energy: Tensor, keep: int, span: int) -> Tensor:
    """Mask of the `kept` most important of every `of` neighbours of a row; of a shorter last group as many as it has, at most."""
    if keep == span:
        return torch.ones_like(w, dtype=torch.bool)
    size = w.abs()
    by_column, by_row = (size / size.mean(d, keepdim=True).clamp(min=1e-30) for d in (0, 1))
    importance = (by_column + by_row) * energy.clamp(min=0) ** 0.25
    padded = torch.nn.functional.pad(importance, (0, -w.shape[1] % span), value=-1.0).unflatten(1, (-1, span))
    best = torch.argsort(padded, dim=-1, descending=True, stable=True)[..., :keep]
    chosen = torch.zeros_like(padded, dtype=torch.bool).scatter_(-1, best, value=True)
    return chosen.flatten(1)[:, : w.shape[1]]


def _pack_bitmap(masks: Sequence[Tensor], children: Sequence[Packed]) -> Packed:
    """One child as it is; several with a map of their numbers, stored at their own weights only."""
    if len(children) == 1:
        return children[0]
    every = torch.stack(list(masks))
    number, covered = every.to(torch.uint8).argmax(0), every.any(0)
    stream = bitpack.pack(number[covered], compute_index_width(len(children)))
    rows, cols = covered.shape
    return Packed("masked", rows, cols, {"map": stream}, {"map": "bitmap"}, tuple(children))
