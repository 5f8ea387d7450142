"""Figures of sweeps hold the errors, scales and means they were given, and say how far they went."""

import plotly.graph_objects as go
import pytest
import torch

from workbench.analysis.glossary import COLUMNS
from workbench.analysis.method.run_trace import tabulate_sweep_errors, tabulate_sweep_paths
from workbench.quantizers.contract import Sweeps, WatchedRows
from workbench.views.method import binarization_sweeps as views
from workbench.views.theme import DARK, LIGHT, Theme

FITS = [Sweeps(0, 0, 8, (4.0, 2.0, 1.0), ()), Sweeps(0, 8, 16, (6.0, 5.0), ()), Sweeps(2, 0, 8, (5.0, 4.0), ())]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_errors_are_lines_of_shares(theme: Theme) -> None:
    figure = views.draw_sweep_errors(tabulate_sweep_errors(FITS), theme=theme)
    go.Figure(figure.plot)
    first, second = figure.plot["data"]
    assert (first["y"], second["y"]) == ([1, 0.7, 0.6], [1, 0.8])
    assert figure.answer == (
        "After at most 2 sweeps over 3 sets of scales, 66.7 % of the initial error is left; no sweep raises it."
    )


@pytest.mark.parametrize("mean", [True, False], ids=["mean", "plain"])
def test_paths_are_a_line_a_row_and_the_means_below(mean: bool) -> None:
    path = []
    for sweep in range(3):
        scale = torch.tensor([[1.0 + 0.1 * sweep, 2.0], [0.5, 0.25]])
        path.append(WatchedRows(scale, torch.tensor([0.0, 0.125 * sweep]) if mean else None))
    table = tabulate_sweep_paths(Sweeps(0, 0, 8, (3.0, 2.0, 1.0), tuple(path)))
    figure = views.draw_sweep_paths(table, "columns 0 to 7")
    go.Figure(figure.plot)
    scales = [trace for trace in figure.plot["data"] if trace["yaxis"] == "y"]
    assert [trace["line"]["dash"] for trace in scales] == ["solid", "dash", "solid", "dash"]
    assert scales[0]["y"] == pytest.approx([1.0, 1.1, 1.2])
    means = [trace["y"] for trace in figure.plot["data"] if trace["yaxis"] == "y2"]
    assert means == ([[0, 0, 0], [0, 0.125, 0.25]] if mean else [])
    assert "The first 2 rows of columns 0 to 7" in figure.answer
    assert "changes by at most 20 % in 2 sweeps" in figure.answer
    assert {*table, *tabulate_sweep_errors(FITS)} <= set(COLUMNS)
