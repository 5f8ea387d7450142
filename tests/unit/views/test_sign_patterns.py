"""Codebook figures: lines, bars and points are the numbers of the analysis, and the sentences say them."""

import pandas as pd
import plotly.graph_objects as go
import pytest

from tests.battery.cases import gaussian, quantize
from workbench.analysis.method import sign_patterns as analysis
from workbench.presets.preset import compose, make_part
from workbench.views.method import sign_patterns as codebook
from workbench.views.theme import DARK, LIGHT, Theme

W = gaussian(64, 480)
PACKED = quantize(compose(make_part("coder", "binary-codebook", length=8, entries=64)), W).packed


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_patterns_are_lines_of_shares_above_an_even_one(theme: Theme) -> None:
    original, transformed = analysis.count_sign_patterns(W, 8), analysis.count_sign_patterns(W.abs() - 0.5, 8)
    figure = codebook.draw_sign_patterns(original, transformed, theme=theme)
    go.Figure(figure.plot)
    first, second, even = figure.plot["data"]
    assert first["y"] == original.table["share"].tolist()
    assert second["y"] == transformed.table["share"].tolist()
    assert even["y"] == [2**-8, 2**-8]
    assert f"{original.entropy_per_sign:.3f} per sign" in figure.answer
    assert f"{transformed.entropy_per_sign:.3f} after the transform" in figure.answer
    assert figure.table["count after"].sum() == transformed.vectors


def test_patterns_without_a_transform() -> None:
    figure = codebook.draw_sign_patterns(analysis.count_sign_patterns(W, 8))
    assert [trace["name"] for trace in figure.plot["data"]] == ["original", "uniform distribution"]
    assert "transform" not in figure.answer


def test_flips_are_points_over_the_bound() -> None:
    table = analysis.tabulate_codebooks(PACKED, W)
    figure = codebook.draw_sign_flips(table)
    go.Figure(figure.plot)
    bound, points = figure.plot["data"]
    assert (points["x"], points["y"]) == ([0.75], table["flip_rate"].tolist())
    assert bound["y"][0] > bound["y"][-1] == 0
    assert "are flipped at 0.75 bits per sign" in figure.answer
    both = pd.concat([table.assign(flip_rate=0.3), table])
    assert codebook.draw_sign_flips(both, moved=True).answer.startswith(figure.answer)
    assert "when error feedback changed the weights" in codebook.draw_sign_flips(both, moved=True).answer
    assert (
        codebook.draw_sign_flips(analysis.tabulate_codebooks(PACKED)).answer
        == "No codebook has been compared with its weights yet."
    )


def test_every_column_of_the_tables_is_in_the_glossary() -> None:
    from workbench.analysis.glossary import COLUMNS

    ((_, node),) = analysis.iterate_codebooks(PACKED)
    tables: list[pd.DataFrame] = [
        analysis.count_sign_patterns(W, 8).table,
        analysis.tabulate_usage(node),
        analysis.tabulate_codebooks(PACKED, W),
    ]
    assert {column for table in tables for column in table} <= set(COLUMNS)
