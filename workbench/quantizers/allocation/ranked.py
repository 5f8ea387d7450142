"""Allocator `ranked`: a score for each layer; layers with the highest scores get the recipe with more bits."""

from dataclasses import dataclass

import numpy as np

from workbench.errors import RecipeError
from workbench.quantizers.allocation.options import Allocator, Options
from workbench.recipe import setting
from workbench.registry import register

SCORES = ("lim", "zd", "entropy")


@register("allocation", "ranked")
@dataclass(frozen=True)
class Ranked(Allocator):
    """Layers in descending order of a score go from the cheapest to the dearest recipe while the budget lasts.

    `lim` and `zd` are those of arXiv 2406.17415, `entropy` that of LUQ (arXiv 2509.23729), see `analysis.scores`; measured losses
    are not looked at.
    """

    by: str = setting("lim", "score that ranks the layers", choices=SCORES)

    def choose(self, options: Options, budget: float) -> np.ndarray:
        """Down the ranking; a layer that no longer fits is passed over. RecipeError without this score."""
        if self.by not in options.scores:
            raise RecipeError(
                f"allocation by {self.by!r} needs that score of every layer; pass scores=wb.layer_scores(model, text)."
            )
        chosen, dearest = options.cheapest(), options.bits.argmax(1)
        left = budget - options.cost(chosen)
        for layer in np.argsort(-options.scores[self.by], kind="stable"):
            extra = options.bits[layer, dearest[layer]] - options.bits[layer, chosen[layer]]
            if extra <= left:
                chosen[layer], left = dearest[layer], left - extra
        return chosen
