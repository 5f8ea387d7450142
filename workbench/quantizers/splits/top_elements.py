"""Split `top-elements`: the most salient single weights and the rest."""

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


@register("split", "top-elements")
@dataclass(frozen=True)
class TopElements(Split):
    """Masks: the rest, then the `share` of weights with the highest saliency in the whole matrix (PB-LLM, arXiv 2310.00034)."""

    share: float = setting(0.1, "share of salient weights", low=0.0, high=1.0)
    metric: str = setting("magnitude", "measure of saliency", choices=METRICS)

    @property
    def needs_moment(self) -> bool:
        """Only the Hessian metric does."""
        return self.metric == "hessian"

    def masks(self, w: Tensor, moment: Tensor | None) -> list[Tensor]:
        """[rest, salient]."""
        scores = compute_saliency(w, moment, self.metric).reshape(-1)
        chosen = torch.zeros_like(scores, dtype=torch.bool)
        order = torch.argsort(scores, descending=True, stable=True)
        chosen[order[: round(self.share * scores.numel())]] = True
        salient = chosen.view_as(w)
        return [~salient, salient]

    @property
    def shares(self) -> tuple[float, ...]:
        """As set."""
        return (1 - self.share, self.share)

    def pack(self, masks: Sequence[Tensor], children: Sequence[Packed]) -> Packed:
        """Format `masked` with a bitmap."""
        rows, cols = masks[0].shape
        return Packed("masked", rows, cols, {"map": bitpack.pack(masks[1], 1)}, {"map": "bitmap"}, tuple(children))
