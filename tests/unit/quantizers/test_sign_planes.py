"""Sign planes: closed forms, nearest sums of signs by brute force, and sweeps that never get worse."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.battery.cases import correlated, gaussian, quantize
from workbench import registry
from workbench.presets.preset import compose
from workbench.quantizers.coders.fitting import sign_planes
from workbench.quantizers.coders.fitting.sign_planes import PlaneScales

EVERY = slice(0, 1 << 30)


def all_of(w: Tensor) -> Tensor:
    return torch.ones_like(w, dtype=torch.bool)


def error_of(w: Tensor, params: PlaneScales, mask: Tensor) -> float:
    values = sign_planes.sum_planes(sign_planes.choose_nearest_signs(w, params), params, slice(0, w.shape[1]))
    return float(((values - w) * mask).double().square().sum())


def test_one_plane_is_the_mean_size_and_the_mean() -> None:
    w = torch.tensor([[3.0, -1.0, 0.0, 2.0]])
    params = sign_planes.fit_greedy_planes(w, all_of(w), 1, True, False, all_of(w))
    assert params.mean.item() == 1.0
    assert params.scale.item() == (2 + 2 + 1 + 1) / 4
    assert sign_planes.choose_nearest_codes(w, params, EVERY).tolist() == [[1, 0, 0, 1]]


def test_sign_of_zero_is_plus_one() -> None:
    params = PlaneScales(torch.tensor([[1.0]]))
    assert sign_planes.choose_nearest_codes(torch.tensor([[0.0, -0.0, -1e-9]]), params, EVERY).tolist() == [[1, 1, 0]]


def test_averages_run_over_the_mask_or_as_released_over_everything() -> None:
    w = torch.tensor([[4.0, 2.0, 100.0, 100.0]])
    mask = torch.tensor([[True, True, False, False]])
    kept = sign_planes.fit_greedy_planes(w, mask, 1, True, False, mask)
    released = sign_planes.fit_greedy_planes(w, mask, 1, True, False, all_of(w))
    assert (kept.mean.item(), kept.scale.item()) == (3.0, 1.0)
    assert (released.mean.item(), released.scale.item()) == (1.5, (2.5 + 0.5 + 1.5 + 1.5) / 4)


@pytest.mark.parametrize("columns", [False, True], ids=["rows", "row-column"])
@pytest.mark.parametrize("mean", [False, True], ids=["plain", "mean"])
def test_two_planes_pick_the_nearest_of_four_values(columns: bool, mean: bool) -> None:
    w = gaussian(5, 30)
    params = sign_planes.fit_greedy_planes(w, all_of(w), 2, mean, columns, all_of(w))
    size = sign_planes.compute_magnitudes(params, slice(0, 30)).expand(2, 5, 30)
    offset = params.mean[:, None] if mean else torch.zeros(5, 1)
    options = torch.stack([a * size[0] + b * size[1] + offset for a, b in itertools.product((-1, 1), repeat=2)])
    values = sign_planes.sum_planes(sign_planes.choose_nearest_signs(w, params), params, slice(0, 30))
    torch.testing.assert_close((values - w).abs(), (options - w).abs().amin(0))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 40)),
    count=st.integers(1, 2),
    mean=st.booleans(),
    columns=st.booleans(),
    density=st.sampled_from([1.0, 0.5, 0.1, 0.0]),
    tail=st.sampled_from([1.0, 3.0]),
)
def test_no_sweep_is_worse_and_the_best_is_kept(
    seed: int, shape: tuple[int, int], count: int, mean: bool, columns: bool, density: float, tail: float
) -> None:
    random = torch.Generator().manual_seed(seed)
    w = torch.randn(shape, generator=random)
    w = w.sign() * w.abs() ** tail
    mask = torch.rand(shape, generator=random) < density
    start = sign_planes.fit_greedy_planes(w, mask, count, mean, columns, mask)
    fit = sign_planes.alternate(w, mask, start, 20, sign_planes.choose_nearest_signs)
    assert list(fit.sweeps) == sorted(fit.sweeps, reverse=True)
    assert error_of(w, fit.params, mask) == pytest.approx(fit.sweeps[-1], rel=1e-6, abs=1e-9)
    assert fit.sweeps[-1] <= error_of(w, start, mask) * (1 + 1e-6) + 1e-9


def test_planted_planes_are_found_exactly() -> None:
    w = 1.5 * gaussian(8, 64).sign() + 0.25 * gaussian(8, 64, 1).sign()
    start = sign_planes.fit_greedy_planes(w, all_of(w), 2, False, False, all_of(w))
    fit = sign_planes.alternate(w, all_of(w), start, 15, sign_planes.choose_nearest_signs)
    assert fit.sweeps[-1] == pytest.approx(0, abs=1e-4)
    torch.testing.assert_close(fit.params.scale, torch.tensor([[1.5] * 8, [0.25] * 8]), rtol=1e-3, atol=1e-3)


def test_the_path_of_scales_and_means_leads_from_the_start_to_the_result() -> None:
    w = gaussian(12, 200) + 0.4
    start = sign_planes.fit_greedy_planes(w, all_of(w), 2, True, False, all_of(w))
    fit = sign_planes.alternate(w, all_of(w), start, 15, sign_planes.choose_nearest_signs)
    assert len(fit.path) == len(fit.sweeps) > 2
    for name in ("scale", "mean"):
        assert torch.equal(getattr(fit.path[0], name), getattr(start, name)[..., : sign_planes.WATCHED])
        assert torch.equal(getattr(fit.path[-1], name), getattr(fit.params, name)[..., : sign_planes.WATCHED])


def test_planted_row_and_column_scales_are_found() -> None:
    rows, cols = gaussian(16, 1).abs() + 0.5, gaussian(1, 48, 1).abs() + 0.5
    w = rows * cols * gaussian(16, 48, 2).sign()
    coder = registry.make("coder", "sign", scales="row-column", mean=False)
    fit = coder.fit(w, all_of(w), None, None)
    assert fit.sweeps[-1] < 1e-6 * float(w.square().sum())
    assert fit.sweeps[-1] < fit.sweeps[0]


def test_settled_scales_have_nothing_left_to_gain_for_their_signs() -> None:
    w = gaussian(4, 200) + 0.4
    start = sign_planes.fit_greedy_planes(w, all_of(w), 1, True, False, all_of(w))
    params = sign_planes.alternate(w, all_of(w), start, 30, sign_planes.choose_nearest_signs).params
    again = sign_planes.refine(w, all_of(w), sign_planes.choose_nearest_signs(w, params), params)
    torch.testing.assert_close(again.scale, params.scale, rtol=2e-3, atol=1e-4)
    torch.testing.assert_close(again.mean, params.mean, rtol=2e-2, atol=2e-3)


def test_scales_calibrated_within_a_group_lose_less_of_the_output() -> None:
    """ARB-X against plain ARB, no other step between them and the result."""
    w, h = gaussian(32, 256) + 0.3, correlated(256)
    coders = (registry.make("coder", "sign", scales="group", rescale=False, scaling=how) for how in ("plain", "moment"))
    plain, calibrated = (quantize(compose(coder), w, h) for coder in coders)
    assert calibrated.output_error is not None
    assert plain.output_error is not None
    assert calibrated.output_error < 0.98 * plain.output_error
    assert calibrated.relative_error > plain.relative_error


def test_row_scales_of_groups_and_column_scales_together() -> None:
    """ARB-RC in blocks of 64: a scale a row and block, and one a column."""
    blocks = gaussian(16, 4).abs() + 0.5
    w = blocks.repeat_interleave(64, 1) * (gaussian(1, 256, 1).abs() + 0.5) * gaussian(16, 256, 2).sign()
    result = quantize(compose(registry.make("coder", "sign", scales="group-column", group=64, mean=False)), w)
    assert result.relative_error < 1e-6
    assert result.packed.tensors["scale"].shape == (1, 16, 4)
    assert result.packed.tensors["column_scale"].shape == (1, 256)
