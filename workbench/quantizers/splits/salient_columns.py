"""Split `salient-columns`: the most salient columns and the rest."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.part_settings import METRICS
from workbench.quantizers.contract import Split
from workbench.quantizers.splits.fitting.weight_saliency import compute_saliency
from workbench.recipe import setting
from workbench.registry import register


@register("split", "salient-columns")
@dataclass(frozen=True)
class SalientColumns(Split):
    """Masks: the rest, then the `share` of columns with the highest total saliency.

    After the structural split of BiLLM (arXiv 2402.04291), which searches the number of columns in each block of 128; here
    the share is set and the columns are chosen once for the layer. Only one bit a column is stored.
    """

    share: float = setting(0.1, "share of salient columns", low=0.0, high=1.0)
    metric: str = setting("magnitude", "measure of saliency, summed over a column", choices=METRICS)

    @property
    def needs_moment(self) -> bool:
        """Only the Hessian metric does."""
        return self.metric == "hessian"

    def masks(self, w: Tensor, moment: Tensor | None) -> list[Tensor]:
        """[rest, salient]."""
        scores = compute_saliency(w, moment, self.metric).sum(0)
        chosen = torch.zeros_like(scores, dtype=torch.bool)
        chosen[torch.argsort(scores, descending=True, stable=True)[: round(self.share * len(scores))]] = True
        salient = chosen.expand_as(w)
        return [~salient, salient]

    @property
    def shares(self) -> tuple[float, ...]:
        """As set."""
        return (1 - self.share, self.share)

    def pack(self, masks: Sequence[Tensor], children: Sequence[Packed]) -> Packed:
        """Format `masked` with one flag a column."""
        rows, cols = masks[0].shape
        return Packed("masked", rows, cols, {"map": bitpack.pack(masks[1][0], 1)}, {"map": "columns"}, tuple(children))
