"""The figures of a layer's weights hold the numbers they were given, in sentence, plot and table."""

import numpy as np
import pytest
import torch

from workbench.analysis.weights import weight_sketch as analysis
from workbench.analysis.weights.weight_sketch import Levels
from workbench.views.theme import DARK, LIGHT, Theme
from workbench.views.weights import matrix

WEIGHT = torch.linspace(-1, 1, 60).reshape(6, 10)
BEFORE, AFTER = (
    analysis.compute_histogram(WEIGHT, limit=0.9, bins=9),
    analysis.compute_histogram(WEIGHT.sign(), limit=1.8, bins=9),
)
ROW = Levels(np.array([-1.0, 1.0]), np.array([-1.0, 1.0]), np.array([-1.0, 1.0]), 1)
LAYER = Levels(np.array([-1.0, 1.0]), np.array([-1.2, 0.9]), np.array([-0.8, 1.1]), 3)


def test_the_histogram_draws_and_lists_the_counts() -> None:
    figure = matrix.draw_histogram(BEFORE, AFTER)
    before, after = figure.plot["data"]
    assert (before["name"], after["name"]) == ("original", "quantized")
    assert before["y"] == BEFORE.counts.tolist() == figure.table["original"].tolist()
    assert after["y"] == AFTER.counts.tolist() == figure.table["quantized"].tolist()
    assert before["width"] == BEFORE.width
    np.testing.assert_allclose((figure.table["from"] + figure.table["to"]) / 2, before["x"], atol=1e-12)
    assert figure.table["from"].iloc[0] == BEFORE.low
    assert figure.table["to"].iloc[-1] == pytest.approx(BEFORE.high)


def test_a_layer_that_is_not_quantized_shows_one_histogram() -> None:
    figure = matrix.draw_histogram(BEFORE)
    assert len(figure.plot["data"]) == 1
    assert list(figure.table) == ["from", "to", "original"]
    assert figure.plot["layout"]["shapes"] == []
    assert "quantize the layer to see" in figure.answer


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        pytest.param(
            ROW,
            "60 weights of row 2 (6 lie beyond the axis) share 2 levels; dotted lines are the edges of their cells.",
            id="one-row",
        ),
        pytest.param(LAYER, "each group has its own 2 levels", id="layer"),
        pytest.param(None, "too many different values to draw as lines", id="too-many"),
    ],
)
def test_the_sentence_counts_weights_and_levels(levels: Levels | None, said: str) -> None:
    assert said in matrix.draw_histogram(BEFORE, AFTER, levels, scope="row 2").answer


def test_a_line_stands_at_every_level_and_a_band_where_groups_differ() -> None:
    shapes = matrix.draw_histogram(BEFORE, AFTER, LAYER).plot["layout"]["shapes"]
    lines = [shape for shape in shapes if shape["type"] == "line" and shape["line"]["dash"] != "dot"]
    bands = [shape for shape in shapes if shape["type"] == "rect"]
    assert [(line["x0"], line["x1"]) for line in lines] == [(-1.0, -1.0), (1.0, 1.0)]
    assert [(band["x0"], band["x1"]) for band in bands] == [(-1.2, -0.8), (0.9, 1.1)]
    edges = [shape for shape in shapes if shape["type"] == "line" and shape["line"]["dash"] == "dot"]
    assert [edge["x0"] for edge in edges] == [0.0], "the edge of the two cells"
    assert all(s["type"] == "line" for s in matrix.draw_histogram(BEFORE, AFTER, ROW).plot["layout"]["shapes"])


def test_levels_are_written_only_where_they_can_be_read() -> None:
    many = np.arange(9.0)
    notes = matrix.draw_histogram(BEFORE, AFTER, ROW).plot["layout"]["annotations"]
    assert [note["text"].strip() for note in notes] == ["-1", "1"]
    assert notes[0]["y"] != notes[1]["y"], "neighbours stand on different lines"
    assert matrix.draw_histogram(BEFORE, AFTER, Levels(many, many, many, 1)).plot["layout"]["annotations"] == []


@pytest.mark.parametrize("log", [False, True], ids=["linear", "logarithmic"])
def test_the_axis_says_when_it_is_logarithmic(log: bool) -> None:
    axis = matrix.draw_histogram(BEFORE, log=log).plot["layout"]["yaxis"]
    assert axis["type"] == ("log" if log else "linear")
    assert ("log scale" in axis["title"]["text"]) == log


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_both_pages_have_their_own_colours(theme: Theme) -> None:
    figure = matrix.draw_histogram(BEFORE, AFTER, theme=theme)
    assert [trace["marker"]["color"] for trace in figure.plot["data"]] == [theme.original, theme.quantized]
    assert figure.plot["layout"]["font"]["color"] == theme.text
