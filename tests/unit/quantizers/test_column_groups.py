"""Split `groups`: thresholds and salient columns against brute force, exact N:M counts, maps inside maps, blocks as they come."""

import itertools

import pytest
import torch
from torch import Tensor

from tests.battery.cases import correlated, gaussian, quantize, snapshots
from workbench import presets, registry
from workbench.errors import RecipeError
from workbench.kernels import formats
from workbench.presets.preset import compose, make_part
from workbench.quantizers.splits.fitting.magnitude_thresholds import SHARES, quantiles, search_thresholds, split_by_size
from workbench.quantizers.splits.fitting.salient_search import compute_second_order_error, select_salient_columns
from workbench.quantizers.splits.magnitude_groups import choose
from workbench.recipe import Part


def group_error(size: Tensor, own: Tensor, limits: Tensor) -> float:
    """Squared error of one scale a row and group, the slow way."""
    error = 0.0
    for mask in split_by_size(size, own, limits):
        for values, kept in zip(size, mask, strict=True):
            group = values[kept]
            error += float((group - group.mean()).square().sum()) if len(group) else 0.0
    return error


@pytest.mark.parametrize("density", [1.0, 0.6])
def test_two_and_three_groups_are_the_best_of_all_candidates(density: float) -> None:
    size = gaussian(4, 60).abs()
    own = torch.rand(4, 60, generator=torch.Generator().manual_seed(3)) < density
    levels = quantiles(size[own], SHARES)[::1]
    best = min(group_error(size, own, levels[[i]]) for i in range(len(levels)))
    assert group_error(size, own, search_thresholds(size, own, 2, "joint")) == pytest.approx(best, rel=1e-5)
    pairs = list(itertools.combinations(range(0, len(levels), 8), 2))
    coarse = min(group_error(size, own, levels[list(pair)]) for pair in pairs)
    joint = group_error(size, own, search_thresholds(size, own, 3, "joint"))
    assert joint <= coarse * (1 + 1e-5)
    assert joint <= group_error(size, own, search_thresholds(size, own, 3, "greedy")) * (1 + 1e-5)


def test_greedy_peels_the_largest_group_off_first() -> None:
    size, own = gaussian(16, 400).abs(), torch.ones(16, 400, dtype=torch.bool)
    assert search_thresholds(size, own, 3, "greedy")[1] == search_thresholds(size, own, 2, "greedy")[0]


def test_the_second_threshold_of_stbllm_is_twice_the_first() -> None:
    low, high = search_thresholds(gaussian(16, 400).abs(), torch.ones(16, 400, dtype=torch.bool), 3, "double").tolist()
    assert high == 2 * low


def test_groups_ascend_in_size() -> None:
    w = gaussian(8, 128)
    small, middle, large = registry.make("split", "groups", groups=3).masks(w, None)
    size = w.abs()
    assert size[small].max() <= size[middle].min()
    assert size[middle].max() <= size[large].min()


def test_salient_columns_are_the_best_number_of_the_most_salient() -> None:
    w = gaussian(32, 40)
    w[:, [3, 17, 30]] *= 6
    score = w.abs().sum(0)
    found = select_salient_columns(w, score, 20)
    order = torch.argsort(score, descending=True)
    errors = [compute_second_order_error(w[:, order[:k]]) + compute_second_order_error(w[:, order[k:]]) for k in range(1, 20)]
    assert found[[3, 17, 30]].all()
    assert int(found.sum()) == 1 + errors.index(min(errors))


def test_the_error_of_two_planes_is_what_the_coder_makes() -> None:
    w = gaussian(16, 64)
    coder = make_part("coder", "sign", planes=2, sweeps=0, rescale=False)
    error = quantize(compose(coder), w).relative_error * float(w.square().sum())
    assert compute_second_order_error(w) == pytest.approx(error, rel=2e-3)


@pytest.mark.parametrize(("kept", "of"), [(4, 8), (6, 8), (2, 4), (1, 16)])
def test_exactly_n_of_m_are_kept(kept: int, of: int) -> None:
    own = choose(gaussian(10, 160), torch.ones(160), kept, of)
    assert (own.view(10, -1, of).sum(-1) == kept).all()
    ragged = choose(gaussian(10, of + 1), torch.ones(of + 1), kept, of)
    assert (ragged.sum(1) == kept + 1).all()


def test_what_is_kept_is_large_and_meets_strong_inputs() -> None:
    w = torch.tensor([[1.0, 1.1, 0.1, 0.1, 1.0, 1.0, 1.0, 1.0]]).repeat(4, 1)
    energy = torch.tensor([1.0, 1.0, 1.0, 1.0, 100.0, 1.0, 100.0, 1.0])
    assert choose(w, energy, 2, 4)[0].tolist() == [True, True, False, False, True, False, True, False]


def sign(**settings: object) -> Part:
    return make_part("coder", "sign", scales="group", sweeps=0, rescale=False, **settings)


def test_pruned_weights_are_zero_and_nothing_of_them_is_stored() -> None:
    split = make_part("split", "groups", groups=2, kept=4)
    w = gaussian(16, 256)
    result = quantize(compose(make_part("coder", "zero"), sign(), sign(), split=split), w)
    pruned, *_ = split.masks(w, None)
    assert torch.equal(result.weight() == 0, pruned)
    bits = {entry.item: entry.bits for entry in result.ledger.entries}
    assert bits["masked map"] == 16 * 32 * 7
    assert bits["1.masked map"] == 16 * 128
    assert bits["1.0.planes signs"] + bits["1.1.planes signs"] == 16 * 128


def test_maps_inside_maps_decode_to_the_values_that_were_coded() -> None:
    split = make_part("split", "groups", groups=3, salient=20, salient_groups=2, kept=5)
    coders = [make_part("coder", "zero"), *[sign()] * 3, *[sign(planes=2)] * 2]
    seen, result = snapshots(compose(*coders, split=split), gaussian(12, 203))
    blocks = [snapshot.weight for snapshot in seen if snapshot.event == "block"]
    assert blocks[-1] is not None
    assert torch.equal(formats.decode(result.packed), blocks[-1])


def test_blocks_are_split_as_errors_have_moved_them() -> None:
    """The second block's groups come from the weights that the first block's error has reached."""
    w, h = gaussian(8, 256), correlated(256)
    split = make_part("split", "groups", groups=2)
    result = quantize(compose(sign(), sign(), split=split, assignment=make_part("assignment", "block-feedback")), w, h)
    from workbench.kernels.formats.composite import unpack_owners

    found, before = unpack_owners(result.packed), split.masks(w, None)[1]
    assert torch.equal(found[:, :128] == 1, before[:, :128])
    assert not torch.equal(found[:, 128:] == 1, before[:, 128:])


def test_scales_of_a_whole_row_see_all_blocks() -> None:
    """A row's scale is fitted on all of its groups, although the coder begins at the first block."""
    w = gaussian(6, 512)
    coder = make_part("coder", "sign", mean=False, sweeps=0, rescale=False)
    split = make_part("split", "groups", groups=2)
    for assignment, h in (
        (make_part("assignment", "nearest"), None),
        (make_part("assignment", "block-feedback"), torch.eye(512)),
    ):
        result = quantize(compose(coder, coder, split=split, assignment=assignment), w, h)
        small = split.masks(w, None)[0]
        expected = (w.abs() * small).sum(1) / small.sum(1)
        torch.testing.assert_close(result.packed.children[0].tensors["scale"][0, :, 0].float(), expected, rtol=1e-3, atol=1e-4)


def test_more_kept_than_there_are_and_blocks_that_cut_groups_are_mistakes() -> None:
    with pytest.raises(RecipeError, match="9 of 8 weights cannot be kept; use at most kept=8"):
        registry.make("split", "groups", kept=9)
    with pytest.raises(RecipeError, match="block of 100 columns does not hold whole groups of 8"):
        registry.make("split", "groups", kept=4, block=100)


def test_every_fit_of_every_coder_is_told_once_block_by_block() -> None:
    recipe, cols = presets.recipe("arb-llm", block=64), 200
    seen, _ = snapshots(recipe, gaussian(16, cols), correlated(cols))
    told = [[(s.coder, s.start) for s in snapshot.detail["sweeps"]] for snapshot in seen if snapshot.event == "block"]
    everything = [(coder, start) for coder in range(len(recipe.coders)) for start in range(0, cols, 64)]
    assert len(told) > 1
    assert sorted(pair for pairs in told for pair in pairs) == everything
    assert max(start for _, start in told[0]) < min(start for _, start in told[1])
