"""Searches of the released codes of BiLLM, ARB-LLM and STBLLM: by saliency instead of weights, in float64.

Each candidate is judged by what the closed form of `coders.released_planes` (a mean and a size for each plane) loses of the
saliencies. One plane on a range of a sorted row loses Σ(s − m)² − (Σ|s − m|)²/n, so running sums answer for all candidates.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.quantizers.coders.fitting.released_planes import fit_residual_planes

CANDIDATES = torch.linspace(0.1, 0.9, 81, dtype=torch.float64)
RELEASED_SHARES = torch.linspace(0.1, 0.9, 160, dtype=torch.float64)


@dataclass(frozen=True)
class SortedRows:
    """The masked numbers of each row in ascending order, infinity after them, with running sums of them and of their squares."""

    numbers: Tensor
    sums: Tensor
    squares: Tensor

    def below(self, levels: Tensor) -> Tensor:
        """How many numbers of each row are smaller than each level, `[rows, levels]`."""
        return torch.searchsorted(self.numbers, levels.repeat(len(self.numbers), 1))

    def loss(self, start: Tensor, stop: Tensor) -> Tensor:
        """What one plane loses of the numbers `start:stop` of each row, summed over rows, `[levels]`."""
        count = stop - start

        def between(running: Tensor, first: Tensor, last: Tensor) -> Tensor:
            return running.gather(1, last) - running.gather(1, first)

        total, divisor = between(self.sums, start, stop), count.clamp(min=1)
        mean = total / divisor
        middle = torch.searchsorted(self.numbers, mean.contiguous()).clamp(start, stop)
        above, under = between(self.sums, middle, stop), between(self.sums, start, middle)
        spread = above - under - mean * (start + stop - 2 * middle)
        return (between(self.squares, start, stop) - total.square() / divisor - spread.square() / divisor).sum(0)


def sort_rows(numbers: Tensor, mask: Tensor) -> SortedRows:
    """The masked numbers of each row."""
    ordered = torch.where(mask, numbers, torch.inf).sort(1).values
    finite = torch.where(ordered.isfinite(), ordered, 0.0)
    sums, squares = (torch.nn.functional.pad(x.cumsum(1), (1, 0)) for x in (finite, finite.square()))
    return SortedRows(ordered, sums, squares)


def select_salient_columns(score: Tensor, limit: int) -> Tensor:
    """Mask `[cols]` of the columns of largest sum, from 1 to `limit` − 1 and never all.

    Their number loses least of the scores when they and the others have two planes each.
    """
    order = torch.argsort(score.sum(0), descending=True, stable=True)
    ranked = score[:, order]
    counts = range(1, min(limit, score.shape[1]))
    losses = [compute_two_plane_loss(ranked[:, :k]) + compute_two_plane_loss(ranked[:, k:]) for k in counts]
    chosen = torch.zeros(score.shape[1], dtype=torch.bool)
    if losses:
        chosen[order[: counts[int(torch.stack(losses).argmin())]]] = True
    return chosen


def compute_two_plane_loss(score: Tensor) -> Tensor:
    """What is left of all of `score` after two planes."""
    mask = torch.ones_like(score, dtype=torch.bool)
    return compute_squared_loss(score - fit_residual_planes(score, mask, 2)[0].values(mask))


def compute_squared_loss(error: Tensor) -> Tensor:
    """The squared error."""
    return error.square().sum()


def search_one_plane_limits(score: Tensor, mask: Tensor, groups: int) -> list[Tensor]:
    """The edges of two groups of the masked scores, or of three of which the second is twice the first."""
    candidates = interpolate_quantiles((score * mask).flatten(), CANDIDATES if groups == 2 else RELEASED_SHARES)
    rows, count = sort_rows(score, mask), mask.sum(1, keepdim=True)
    first, last = rows.below(candidates), count.expand(-1, len(candidates))
    if groups == 2:
        return [candidates[(rows.loss(torch.zeros_like(first), first) + rows.loss(first, last)).argmin()]]
    second = rows.below(2 * candidates)
    losses = rows.loss(torch.zeros_like(first), first) + rows.loss(first, second) + rows.loss(second, last)
    chosen = candidates[torch.where(2 * candidates > candidates[-1], torch.inf, losses).argmin()]
    return [chosen, 2 * chosen]


def search_two_plane_limit(score: Tensor) -> Tensor:
    """The edge of two groups of all scores that have two planes each; zeros are no candidates."""
    return search_best_limit(score, torch.ones_like(score, dtype=torch.bool), score[score != 0], 2, compute_squared_loss)


def search_output_limit(score: Tensor, mask: Tensor, apart: Tensor, moment: Tensor) -> Tensor:
    """The edge of two groups of one plane that loses least of outputs under `moment`; `apart` are the values off the mask."""
    beside = score * ~mask - apart

    def outputs_lost(error: Tensor) -> Tensor:
        return (((error + beside) @ moment) * (error + beside)).sum()

    return search_best_limit(score, mask, (score * mask).flatten(), 1, outputs_lost)


def search_best_limit(score: Tensor, mask: Tensor, numbers: Tensor, planes: int, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The quantile of `numbers` at which the masked scores are cut with the least loss of what is left of them."""
    candidates = interpolate_quantiles(numbers, CANDIDATES)
    losses = []
    for limit in candidates:
        pair = mask & (score < limit), mask & (score >= limit)
        losses.append(loss(score * mask - sum(fit_residual_planes(score, part, planes)[0].values(part) for part in pair)))
    return candidates[torch.stack(losses).argmin()]


def interpolate_quantiles(numbers: Tensor, shares: Tensor) -> Tensor:
    """Quantiles, linear between neighbours; zeros where there are no numbers."""
    if not len(numbers):
        return torch.zeros_like(shares)
    ordered, position = numbers.sort().values, shares * (len(numbers) - 1)
    low = position.floor().long()
    return torch.lerp(ordered[low], ordered[(low + 1).clamp(max=len(numbers) - 1)], position - low)
