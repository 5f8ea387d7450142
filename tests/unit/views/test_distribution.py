"""Figures of the distribution of weights: quantiles, ranges, outliers, singular values."""

import numpy as np
import pytest
import torch

from workbench.analysis.weights import distribution as analysis
from workbench.views.theme import DARK, LIGHT, Theme
from workbench.views.weights import distribution

DRAW = torch.Generator().manual_seed(0)
WEIGHT = torch.randn(20, 30, generator=DRAW)
COARSE = WEIGHT.round()


def test_quantiles_stand_beside_both_laws() -> None:
    pairs = analysis.tabulate_quantiles(torch.randn(300, 300, generator=DRAW))
    figure = distribution.draw_qq_plot(pairs, analysis.tabulate_quantiles(COARSE))
    assert [trace["name"] for trace in figure.plot["data"]] == [
        "normal distribution",
        "Laplace distribution",
        "original",
        "quantized",
    ]
    assert figure.plot["data"][2]["y"] == pairs["weights"].tolist()
    assert figure.answer.endswith("they are closer to the normal distribution.")
    assert "quantized_sigma" in figure.table
    values = torch.tensor(np.random.default_rng(0).laplace(size=(300, 300)))
    assert distribution.draw_qq_plot(analysis.tabulate_quantiles(values)).answer.endswith("closer to the Laplace distribution.")


@pytest.mark.parametrize("side", ["row", "column"])
def test_ranges_name_the_widest_line_and_mark_chosen_ones(side: str) -> None:
    weight = WEIGHT.clone()
    weight[3, 4] = 40.0
    figure = distribution.draw_ranges(analysis.tabulate_ranges(weight, side), analysis.tabulate_ranges(COARSE, side), [2, 5])
    assert figure.answer.startswith(f"{side.capitalize()} {3 if side == 'row' else 4} has the widest range")
    assert [shape["x0"] for shape in figure.plot["layout"]["shapes"]] == [2, 5]
    assert len(figure.plot["data"]) == 6
    assert len(figure.table) == weight.shape[0 if side == "row" else 1]


def test_columns_stand_beside_all_of_them() -> None:
    weight = WEIGHT.clone()
    weight[:, 7] *= 5
    chosen = analysis.tabulate_ranges(weight[:, [2, 7]], "column").assign(column=[2, 7])
    figure = distribution.draw_column_bands(chosen, analysis.tabulate_ranges(weight.reshape(-1, 1), "column"))
    assert figure.table["column"].tolist() == ["all columns", "column 2", "column 7"]
    assert "column 7" in figure.answer
    least, spread = figure.plot["data"][0]["base"], figure.plot["data"][0]["y"]
    np.testing.assert_allclose(np.add(least, spread), figure.table["most"])


def test_outliers_are_where_they_are() -> None:
    weight = WEIGHT.clone()
    weight[11, 23] = -60.0
    figure = distribution.draw_outliers(analysis.tabulate_largest(weight, count=10), (20, 30), 0.01, ([11], [23]))
    assert "The largest weight is -60 (" in figure.answer
    assert "row 11, column 23; 1 % of all weights lie beyond 6 σ" in figure.answer
    assert (figure.plot["data"][0]["x"][0], figure.plot["data"][0]["y"][0]) == (23, 11)
    assert len(figure.plot["layout"]["shapes"]) == 2


def test_the_spectrum_says_what_a_low_rank_would_take_back() -> None:
    low = torch.ones(20, 30)
    rank_one = distribution.draw_singular_values(analysis.tabulate_spectra(WEIGHT, WEIGHT + low))
    assert "a low-rank correction of that rank would recover that share" in rank_one.answer
    assert [trace["name"] for trace in rank_one.plot["data"]] == ["original", "quantized", "difference"]
    alone = distribution.draw_singular_values(analysis.tabulate_spectra(WEIGHT))
    assert "quantize the layer" in alone.answer
    even = distribution.draw_singular_values(analysis.tabulate_spectra(torch.eye(20), torch.zeros(20, 20)))
    assert "the error is not of low rank" in even.answer


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_both_pages_have_their_own_colours(theme: Theme) -> None:
    figure = distribution.draw_singular_values(analysis.tabulate_spectra(WEIGHT, COARSE), theme=theme)
    assert [trace["line"]["color"] for trace in figure.plot["data"]] == [theme.original, theme.quantized, theme.muted]
