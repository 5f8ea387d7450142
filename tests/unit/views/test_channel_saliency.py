"""Figures of salient channels hold the shares they were given and say who carries what."""

import numpy as np
import pandas as pd
import pytest

from workbench.analysis.weights.channel_saliency import rank_channels, tabulate_channel_ranks
from workbench.views.theme import DARK, LIGHT, Theme
from workbench.views.weights import channel_saliency

SHARES = np.array([0.05, 0.6, 0.05, 0.2, 0.1])
TABLE = pd.DataFrame({"channel": range(5), "column_energy": SHARES, "column_absmax": SHARES[::-1]})
RANKED = rank_channels(TABLE, "column_energy")


def test_the_curve_has_a_point_a_channel_and_piles_up() -> None:
    figure = channel_saliency.draw_saliency_curve(RANKED, "column_energy")
    points, marked, total = figure.plot["data"]
    assert points["text"] == [1, 3, 4, 0, 2]
    assert points["y"] == pytest.approx([0.6, 0.2, 0.1, 0.05, 0.05])
    assert total["y"] == pytest.approx([0.6, 0.8, 0.9, 0.95, 1.0])
    assert marked["x"] == []
    assert figure.answer == "1 of 5 channels carries 60 % of the energy of the weights; 1 carry half of it."
    assert figure.plot["layout"]["dragmode"] == "select"


def test_chosen_channels_are_marked_and_counted() -> None:
    figure = channel_saliency.draw_saliency_curve(RANKED, "column_energy", [3, 2])
    assert (figure.plot["data"][1]["text"], figure.plot["data"][1]["x"]) == ([3, 2], [2, 5])
    assert "The 2 chosen channels (3, 2) carry 25 %." in figure.answer


def test_masks_lie_below_the_curve_in_its_order() -> None:
    groups = (["other columns", "salient columns"], np.array([[1, 0, 1, 0.5, 1], [0, 1, 0, 0.5, 0]]))
    figure = channel_saliency.draw_saliency_curve(RANKED, "column_energy", groups=groups)
    strip = figure.plot["data"][-1]
    assert strip["z"].tolist() == [[0, 0.5, 1, 1, 1], [1, 0.5, 0, 0, 0]]
    assert "The split has 100 % of their weights in “salient columns”." in figure.answer


def test_standing_has_a_line_a_channel() -> None:
    figure = channel_saliency.draw_channel_measures(tabulate_channel_ranks(TABLE, [1, 4]), 5)
    assert [trace["name"] for trace in figure.plot["data"]] == ["channel 1", "channel 4"]
    assert figure.plot["data"][0]["y"] == pytest.approx([3.0, 1.0])
    assert figure.answer.startswith("Channel 1 is number 1 of 5 by weights: column energy (3 × the average)")


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_both_pages_have_their_own_colours(theme: Theme) -> None:
    points, marked, _ = channel_saliency.draw_saliency_curve(RANKED, "column_energy", [1], theme=theme).plot["data"]
    assert (points["marker"]["color"], marked["marker"]["color"]) == (theme.original, theme.accent)
