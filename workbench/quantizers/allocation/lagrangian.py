"""Allocator `lagrangian`: one price per bit for all layers, found by bisection; fast."""

from dataclasses import dataclass

import numpy as np

from workbench.quantizers.allocation.options import Allocator, Options
from workbench.registry import register

HALVINGS = 60
TRIED, DEARER = 25, 1.5  # prices tried, up to e^1.5 times the least possible one


@register("allocation", "lagrangian")
@dataclass(frozen=True)
class Lagrangian(Allocator):
    """Every layer takes the option with the least loss + λ · bits, at the smallest price λ that keeps the budget.

    Everett 1963; for bits: Shoham and Gersho 1988. It finds only choices on the lower convex hull: what is left of the budget
    is spent by exchanging the options of one or two layers as long as that lowers the loss.
    """

    def choose(self, options: Options, budget: float) -> np.ndarray:
        """By bisection on log λ, then by exchange."""
        free = options.loss.argmin(1)
        if options.cost(free) <= budget:
            return _exchange_options(options, free, budget)
        # at the highest price nobody pays for a bit more, at the lowest everybody does
        high = np.log(max(np.ptp(options.loss), np.finfo(float).tiny)) + 1
        low = high - np.log(options.bits.max()) - 40
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if options.cost(_choose_at_price(options, middle)) <= budget else (middle, high)
        # from prices somewhat too high, exchange ends elsewhere and now and then lower
        starts = np.unique([_choose_at_price(options, high + extra) for extra in np.linspace(0, DEARER, TRIED)], axis=0)
        return min((_exchange_options(options, start, budget) for start in starts), key=options.added_loss)


def _choose_at_price(options: Options, log_price: float) -> np.ndarray:
    """What every layer takes at one price of a bit."""
    return (options.loss + np.exp(log_price) * options.bits).argmin(1)


def _exchange_options(options: Options, chosen: np.ndarray, budget: float) -> np.ndarray:
    """The choice after the best change of one or two layers that keeps the budget, as long as one lowers the loss."""
    chosen = chosen.copy()
    layers, recipes = options.bits.shape
    layer_index = np.repeat(np.arange(layers), recipes)
    while True:
        current = np.arange(layers), chosen
        bits = (options.bits - options.bits[current][:, None]).reshape(-1)
        gain = (options.loss[current][:, None] - options.loss).reshape(-1)
        slack = budget - options.cost(chosen)
        # a change that neither helps nor frees bits is part of no exchange; the layer's own option stands for "no change"
        useful = np.flatnonzero((gain > 0) | (bits < 0))
        first = np.append(useful, layer_index.size)
        bits, gain, owner = np.append(bits, 0.0), np.append(gain, 0.0), np.append(layer_index, -1)
        fits = bits[first][:, None] + bits[first][None] <= slack
        apart = owner[first][:, None] != owner[first][None]
        gains = np.where(fits & apart, gain[first][:, None] + gain[first][None], 0.0)
        best = np.unravel_index(gains.argmax(), gains.shape)
        if gains[best] <= 1e-12 * max(1.0, abs(options.added_loss(chosen))):
            return chosen
        for change in (first[best[0]], first[best[1]]):
            if change < layer_index.size:
                chosen[layer_index[change]] = change % recipes
