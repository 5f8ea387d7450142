"""Quantiles, ranges, largest weights and singular values against numpy and torch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from workbench.analysis.weights import distribution
from workbench.analysis.weights.weight_sketch import Levels
from workbench.errors import ShapeError

DRAW = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(40, 30, generator=DRAW) * 0.02


def test_cells_end_in_the_middle_between_levels() -> None:
    values = np.array([-3.0, -1.0, 0.0, 4.0])
    assert distribution.compute_cell_edges(Levels(values, values, values, 1)).tolist() == [-2.0, -0.5, 2.0]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000))
def test_quantiles_lie_between_the_weights_on_both_sides(seed: int) -> None:
    weight = torch.randn(60, 50, generator=torch.Generator().manual_seed(seed))
    ordered = weight.flatten().sort().values.numpy()
    shares = np.array([0.01, 0.25, 0.5, 0.9, 0.99])
    found, place, bar = distribution.quantiles(weight, shares), shares * weight.numel(), np.ptp(ordered) / distribution.BINS
    assert (found >= ordered[np.ceil(place - 1e-6).astype(int) - 1] - bar).all()
    assert (found <= ordered[np.floor(place + 1e-6).astype(int)] + bar).all()


@pytest.mark.parametrize("law", ["normal", "laplace"])
def test_weights_of_a_law_lie_on_its_line(law: str) -> None:
    draw = np.random.default_rng(0)
    values = draw.standard_normal((500, 400)) if law == "normal" else draw.laplace(size=(500, 400))
    pairs = distribution.tabulate_quantiles(torch.tensor(values, dtype=torch.float32))
    inner = pairs[pairs["normal"].abs() < 3]
    np.testing.assert_allclose(inner["weights"], inner[law], atol=0.12)
    other = "laplace" if law == "normal" else "normal"
    assert (inner["weights"] - inner[other]).abs().max() > 0.5
    np.testing.assert_allclose(pairs["share_below"], stats.norm.cdf(pairs["normal"]))


def test_a_constant_matrix_has_one_quantile() -> None:
    assert (distribution.tabulate_quantiles(torch.full((3, 4), 2.0))["weights"] == 0).all()


@pytest.mark.parametrize(("side", "dim"), [("row", 1), ("column", 0)])
def test_ranges_are_sorted_out_line_by_line(side: str, dim: int) -> None:
    table = distribution.tabulate_ranges(WEIGHT, side)
    assert table[side].tolist() == list(range(WEIGHT.shape[1 - dim]))
    np.testing.assert_array_equal(table["least"], WEIGHT.amin(dim).numpy())
    np.testing.assert_array_equal(table["most"], WEIGHT.amax(dim).numpy())
    inside = np.quantile(WEIGHT.numpy(), [0.05, 0.5, 0.95], axis=dim, method="nearest")
    np.testing.assert_array_equal(table[["low", "median", "high"]].to_numpy().T, inside)


def test_the_largest_weights_come_with_their_place_and_distance() -> None:
    weight = WEIGHT.clone()
    weight[7, 11], weight[3, 2] = -1.5, 1.25
    table = distribution.tabulate_largest(weight, count=5)
    assert table[["row", "column"]].head(2).to_numpy().tolist() == [[7, 11], [3, 2]]
    assert table["value"].head(2).tolist() == [-1.5, 1.25]
    expected = (weight[7, 11] - weight.mean()) / weight.std(correction=0)
    assert table["sigma"].iloc[0] == pytest.approx(expected.item(), rel=1e-5)
    assert distribution.gather_quantized(table, weight.round())["became"].head(2).tolist() == [-2.0, 1.0]
    assert len(distribution.tabulate_largest(torch.ones(2, 2))) == 4


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (1, 5)], ids=str)
def test_singular_values_are_those_of_torch(shape: tuple[int, int]) -> None:
    weight = torch.randn(*shape, generator=DRAW)
    expected = torch.linalg.svdvals(weight.double()).numpy()
    np.testing.assert_allclose(distribution.compute_singular_values(weight), expected, rtol=1e-9, atol=1e-7)


def test_energy_of_a_matrix_of_rank_one_is_all_in_the_first() -> None:
    table = distribution.tabulate_spectra(torch.ones(6, 4), torch.ones(6, 4) + 0.1 * torch.eye(6, 4))
    assert distribution.compute_energy_share(table["singular"].to_numpy(), 1) == pytest.approx(1.0)
    assert distribution.compute_energy_share(table["singular_difference"].to_numpy(), 1) == pytest.approx(0.25)
    assert distribution.compute_energy_share(np.zeros(3), 1) == 0.0
    assert list(distribution.tabulate_spectra(torch.ones(2, 2))) == ["rank", "singular"]


@pytest.mark.parametrize(
    "call",
    [distribution.compute_singular_values, distribution.tabulate_largest, distribution.tabulate_quantiles],
    ids=lambda f: f.__name__,
)
def test_what_is_no_matrix_is_refused(call: object) -> None:
    with pytest.raises(ShapeError, match=r"a weight of shape \[3\] cannot be drawn"):
        call(torch.ones(3))  # type: ignore[operator]
