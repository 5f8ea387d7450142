"""Searches on saliencies: what running sums say of a cut against the closed form itself, and the cut against brute force."""

import pytest
import torch
from torch import Tensor

from tests.battery.cases import correlated, gaussian
from workbench.quantizers.coders.fitting.released_planes import fit_residual_planes
from workbench.quantizers.splits.fitting.released_search import (
    CANDIDATES,
    RELEASED_SHARES,
    compute_squared_loss,
    compute_two_plane_loss,
    interpolate_quantiles,
    search_best_limit,
    search_one_plane_limits,
    search_output_limit,
    search_two_plane_limit,
    select_salient_columns,
    sort_rows,
)


def scores(rows: int = 6, cols: int = 60) -> tuple[Tensor, Tensor]:
    """Squares of normal numbers, and a mask of most of them."""
    return gaussian(rows, cols).double().square(), gaussian(rows, cols, seed=4) > -1


def slow_loss(score: Tensor, masks: list[Tensor], planes: int = 1) -> float:
    """What is lost of the scores in the masks, each with planes of its own."""
    return sum(
        float(((score - fit_residual_planes(score, mask, planes)[0].values(mask)) * mask).square().sum()) for mask in masks
    )


def test_running_sums_give_the_loss_of_every_range() -> None:
    score, mask = scores()
    rows, levels = sort_rows(score, mask), torch.tensor([0.0, 0.2, 1.0, 3.0], dtype=torch.float64)
    edges = rows.below(levels)
    for i in range(3):
        part = mask & (score >= levels[i]) & (score < levels[i + 1])
        assert rows.loss(edges[:, [i]], edges[:, [i + 1]]).item() == pytest.approx(slow_loss(score, [part]))


def test_two_groups_are_cut_where_least_is_lost() -> None:
    score, mask = scores()
    candidates = interpolate_quantiles((score * mask).flatten(), CANDIDATES)
    errors = [slow_loss(score, [mask & (score < c), mask & (score >= c)]) for c in candidates]
    assert search_one_plane_limits(score, mask, 2) == [candidates[torch.tensor(errors).argmin()]]


def test_the_second_of_three_groups_ends_at_twice_the_first_and_below_the_last_candidate() -> None:
    score, mask = scores()
    candidates = interpolate_quantiles((score * mask).flatten(), RELEASED_SHARES)
    errors = {}
    for c in candidates[2 * candidates <= candidates[-1]]:
        parts = [mask & (score < c), mask & (score >= c) & (score < 2 * c), mask & (score >= 2 * c)]
        errors[float(c)] = slow_loss(score, parts)
    low, high = search_one_plane_limits(score, mask, 3)
    assert (float(low), float(high)) == (min(errors, key=errors.__getitem__), 2 * float(low))


def test_salient_groups_have_two_planes_and_zeros_are_no_candidates() -> None:
    score, mask = scores()
    score = score * mask
    candidates = interpolate_quantiles(score[score != 0], CANDIDATES)
    errors = [slow_loss(score, [score < c, score >= c], 2) for c in candidates]
    assert search_two_plane_limit(score) == candidates[torch.tensor(errors).argmin()]


def test_under_a_moment_of_one_the_outputs_lost_are_the_scores_lost() -> None:
    score, mask = scores()
    apart = gaussian(6, 60, seed=8).double() * ~mask
    plain = search_best_limit(score, mask, (score * mask).flatten(), 1, compute_squared_loss)
    assert search_output_limit(score, mask, apart, torch.eye(60, dtype=torch.float64)) == plain
    h = correlated(60).double()
    candidates, losses = interpolate_quantiles((score * mask).flatten(), CANDIDATES), []
    for c in candidates:
        parts = [mask & (score < c), mask & (score >= c)]
        error = score - apart - sum(fit_residual_planes(score, part, 1)[0].values(part) for part in parts)
        losses.append(float(((error @ h) * error).sum()))
    assert search_output_limit(score, mask, apart, h) == candidates[torch.tensor(losses).argmin()]


def test_salient_columns_lose_least_with_two_planes_apart() -> None:
    score = scores(cols=30)[0]
    score[:, [3, 17]] *= 9
    order = torch.argsort(score.sum(0), descending=True)
    losses = [
        float(compute_two_plane_loss(score[:, order[:k]]) + compute_two_plane_loss(score[:, order[k:]])) for k in range(1, 12)
    ]
    found = select_salient_columns(score, 12)
    assert found[[3, 17]].all()
    assert int(found.sum()) == 1 + losses.index(min(losses))


def test_quantiles_lie_between_neighbours() -> None:
    numbers = torch.tensor([4.0, 1.0, 2.0], dtype=torch.float64)
    assert interpolate_quantiles(numbers, torch.tensor([0.0, 0.25, 0.75, 1.0]).double()).tolist() == [1, 1.5, 3, 4]
    assert interpolate_quantiles(numbers[:0], CANDIDATES).tolist() == [0] * len(CANDIDATES)
