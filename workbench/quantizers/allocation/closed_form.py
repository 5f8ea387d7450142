"""Allocator `closed-form`: the optimal rate of each layer in theory, rounded to an option."""

from dataclasses import dataclass

import numpy as np

from workbench.quantizers.allocation.options import Allocator, Options
from workbench.registry import register


@register("allocation", "closed-form")
@dataclass(frozen=True)
class ClosedForm(Allocator):
    """loss = c · 4^(−R): the best rates are R = level + ½ log₂(c / weights), so that every weight loses the same.

    BAQ (arXiv 2506.05664) does this for the columns of one layer, with column losses as c; here it is for layers, with c fitted
    to their options (geometric mean of loss · 4^R), and rates are rounded down to options, then up where most is missing.
    """

    def choose(self, options: Options, budget: float) -> np.ndarray:
        """Water-filling by bisection on the level, then rounding."""
        rates = options.bits / options.weights[:, None]
        positive = np.maximum(options.loss, np.finfo(float).tiny)
        offset = (np.log2(positive) / 2 + rates).mean(1) - np.log2(options.weights) / 2
        least, most = rates.min(1), rates.max(1)
        low, high = (least - offset).min(), (most - offset).max()
        for _ in range(60):
            middle = (low + high) / 2
            fits = (np.clip(middle + offset, least, most) * options.weights).sum() <= budget
            low, high = (middle, high) if fits else (low, middle)
        return _round_to_options(options, rates, np.clip(low + offset, least, most), budget)


def _round_to_options(options: Options, rates: np.ndarray, ideal: np.ndarray, budget: float) -> np.ndarray:
    """Per layer the dearest option within its rate, then one option more where most is missing, as long as the budget lasts."""
    within = rates <= ideal[:, None] + 1e-9
    chosen = np.where(within, rates, -np.inf).argmax(1)
    while True:
        now = rates[np.arange(len(chosen)), chosen]
        dearer = np.where(rates > now[:, None], rates, np.inf)
        step, cost = dearer.argmin(1), dearer.min(1)
        extra = np.where(np.isfinite(cost), (cost - now) * options.weights, np.inf)
        possible = np.flatnonzero(options.cost(chosen) + extra <= budget)
        if not len(possible):
            return chosen
        layer = possible[(ideal - now)[possible].argmax()]
        chosen[layer] = step[layer]
