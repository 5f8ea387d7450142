"""Measures of channels against plain torch, their order and shares, and the groups that splits put channels in."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import workbench as wb
from workbench.analysis.weights import channel_saliency
from workbench.analysis.weights.channel_saliency import MEASURES
from workbench.errors import ShapeError, WorkbenchError
from workbench.input_sums import LayerStats
from workbench.models import ModelHandle

DRAW = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(24, 16, generator=DRAW)
X = torch.randn(200, 16, generator=DRAW) * torch.linspace(0.1, 3, 16)
STATS = LayerStats((X.T @ X / 200), X.mean(0), X.abs().amax(0), 200)
DOWN = "model.layers.2.mlp.down_proj"

PLAIN = {
    "column_energy": lambda: WEIGHT.double().square().sum(0),
    "column_absmax": lambda: WEIGHT.abs().amax(0).double(),
    "input_absmax": lambda: X.abs().amax(0).double(),
    "input_rms": lambda: X.double().square().mean(0).sqrt(),
    "second_moment": lambda: X.double().square().mean(0),
    "output_energy": lambda: (X.double().square().mean(0)[None] * WEIGHT.double().square()).sum(0),
}


@pytest.mark.parametrize("name", PLAIN)
def test_a_measure_is_what_it_says(name: str) -> None:
    torch.testing.assert_close(channel_saliency.measure(WEIGHT, STATS, name), PLAIN[name](), rtol=1e-5, atol=1e-6)


def test_removing_a_channel_costs_what_least_squares_says() -> None:
    """All later columns repair the first one: W²/[H⁻¹]₀₀. None repairs the last: W² H."""
    h = STATS.moment.double()
    damped = h + 0.01 * h.diagonal().mean() * torch.eye(16, dtype=torch.float64)
    found, energy = channel_saliency.measure(WEIGHT, STATS, "removal_cost"), WEIGHT.double().square().sum(0)
    torch.testing.assert_close(found[0], energy[0] / torch.linalg.inv(damped)[0, 0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found[-1], energy[-1] * damped[-1, -1], rtol=1e-4, atol=1e-6)


def test_every_measure_is_in_the_table_and_shares_add_up() -> None:
    table = channel_saliency.tabulate_saliency(WEIGHT, STATS)
    assert list(table) == ["channel", *MEASURES]
    assert table.drop(columns="channel").sum().tolist() == pytest.approx([1.0] * len(MEASURES))
    assert list(channel_saliency.tabulate_saliency(WEIGHT)) == ["channel", "column_energy", "column_absmax"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=40))
def test_ranks_fall_and_shares_pile_up_to_one(values: list[float]) -> None:
    shares = channel_saliency.compute_shares(torch.tensor(values))
    table = channel_saliency.tabulate_saliency(WEIGHT[:, :1].expand(24, len(values)) * torch.tensor(shares).float().sqrt())
    ranked = channel_saliency.rank_channels(table, "column_energy")
    assert (ranked["share"].diff().dropna() <= 1e-12).all()
    assert ranked["cumulative_share"].iloc[-1] == pytest.approx(1.0)
    assert sorted(ranked["channel"]) == list(range(len(values)))


def test_a_planted_channel_stands_first_by_all_measures() -> None:
    weight, scale = WEIGHT.clone(), torch.ones(16)
    weight[:, 5] *= 10
    scale[5] = 10
    x = torch.randn(400, 16, generator=DRAW) * scale
    stats = LayerStats(x.T @ x / 400, x.mean(0), x.abs().amax(0), 400)
    standing = channel_saliency.tabulate_channel_ranks(channel_saliency.tabulate_saliency(weight, stats), [5, 2])
    assert standing[standing["channel"] == 5]["rank"].tolist() == [1] * len(MEASURES)
    assert (standing[standing["channel"] == 2]["rank"] > 1).all()
    assert (standing["times"] == standing["share"] * 16).all()


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        pytest.param(
            lambda: channel_saliency.measure(WEIGHT, STATS, "beauty"), WorkbenchError, "unknown measure 'beauty'", id="unknown"
        ),
        pytest.param(
            lambda: channel_saliency.measure(WEIGHT, None, "input_rms"), WorkbenchError, "needs calibration", id="no-stats"
        ),
        pytest.param(
            lambda: channel_saliency.measure(WEIGHT[:, :8], STATS, "input_rms"), ShapeError, "16 inputs.*8 columns", id="shape"
        ),
    ],
)
def test_mistakes_are_explained(call: object, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        call()  # type: ignore[operator]


def test_the_masks_of_a_split_are_shares_of_every_channel(builtin: ModelHandle) -> None:
    weight = builtin.weight(DOWN).float()
    stats = wb.calibrate(builtin, wb.text("calibration"), tokens=256, layers=[DOWN])
    result = wb.quantize(builtin, DOWN, wb.recipe("pb-llm", share=0.1, metric="magnitude"), stats=stats)
    names, found = channel_saliency.compute_group_shares(result.packed, weight)
    assert found.shape == (2, 768)
    torch.testing.assert_close(torch.tensor(found.sum(0)), torch.ones(768, dtype=torch.float64))
    assert found.mean(1).min() == pytest.approx(0.1, abs=1e-3)
    assert len(names) == 2


def test_another_basis_or_one_coder_has_no_masks(builtin: ModelHandle) -> None:
    weight = builtin.weight(DOWN).float()
    assert channel_saliency.compute_group_shares(wb.quantize(builtin, DOWN, wb.recipe("rtn", bits=2)).packed, weight) is None
