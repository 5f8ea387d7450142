"""Expectations: the law is the formula it says, and measured points stand in the same terms."""

import math

import pandas as pd
import pytest

from workbench.analysis.decisions.scaling_law import (
    STUDIES,
    UNDERTRAINED,
    count_parameters,
    read_training_tokens,
    tabulate_expected_losses,
    tabulate_measured_losses,
)
from workbench.errors import ModelError
from workbench.models import ModelHandle, open_model
from workbench.views.decisions import scaling_law as views

STOPS = pd.DataFrame({"recipe": ["none", "rtn:bits=4", "x"], "bits_per_weight": [16.0, 4.2, 2.1], "perplexity": [8.0, 8.4, 16.0]})


def test_the_law() -> None:
    expected = 0.017 * 1e11**0.5251 / (1e9**0.2261 * 3**5.4967)
    assert UNDERTRAINED.added_loss(1e9, 1e11, 3) == pytest.approx(expected)
    table = tabulate_expected_losses(1e9, 1e11)
    assert table.set_index("bits").loc[3.0, "added_loss"] == pytest.approx(expected)
    assert table["ratio"].tolist() == pytest.approx([math.exp(loss) for loss in table["added_loss"]])


@pytest.mark.parametrize(
    ("count", "tokens", "bits"), [(2e9, 1e11, 3), (1e9, 1e10, 3), (1e9, 1e11, 4)], ids=["size", "training", "bits"]
)
def test_larger_less_trained_and_finer_models_lose_less(count: float, tokens: float, bits: float) -> None:
    assert UNDERTRAINED.added_loss(count, tokens, bits) < UNDERTRAINED.added_loss(1e9, 1e11, 3)


def test_what_lies_outside_of_the_fit_is_said(builtin: ModelHandle) -> None:
    assert UNDERTRAINED.outside(1e9, 1e11) == ""
    assert UNDERTRAINED.outside(count_parameters(builtin), 9e6) == "4.72 million parameters and 9 million training tokens"


def test_training_of_the_built_in_model_is_known(builtin: ModelHandle, tiny_models: dict) -> None:
    assert read_training_tokens(builtin) == 5_600_000 + 3_366_912
    assert read_training_tokens(open_model(tiny_models["llama"])) is None


def test_measured_points_are_relative_to_the_original() -> None:
    own = tabulate_measured_losses(STOPS)
    assert own["added_loss"].tolist() == pytest.approx([math.log(8.4 / 8), math.log(2)])
    figure = views.draw_added_loss(tabulate_expected_losses(1e9, 1e11), own, "")
    line, points = figure.plot["data"]
    assert points["x"] == [4.2, 2.1]
    assert len(figure.table) == len(line["x"]) + 2
    assert "measured here: 0.693 at 2.10 stored bits" in figure.answer


def test_pinned_models_stand_among_the_measured_ones() -> None:
    pinned = pd.DataFrame({"pin": ["mine"], "bits_per_weight": [1.5], "perplexity": [24.0]})
    own = tabulate_measured_losses(STOPS, pinned)
    assert own["recipe"].tolist()[-1] == "mine"
    assert own["added_loss"].iloc[-1] == pytest.approx(math.log(3))
    assert tabulate_measured_losses(STOPS.iloc[:0], pinned).empty, "without the original there is nothing to compare with"


def test_without_measurements_only_the_law_is_told() -> None:
    figure = views.draw_added_loss(
        tabulate_expected_losses(5e6, 9e6), tabulate_measured_losses(STOPS.iloc[:1]), "5 million parameters"
    )
    assert "measured" not in figure.answer
    assert "so this is an extrapolation" in figure.answer


def test_every_study_has_its_source() -> None:
    page = views.render_studies()
    for study in STUDIES:
        assert f"arXiv {study.arxiv}" in page
        assert study.finding
        assert study.checked


def test_what_cannot_be_is_an_error() -> None:
    with pytest.raises(ModelError, match="0 parameters, 1 tokens and 2 bits; give numbers above 0"):
        UNDERTRAINED.added_loss(0, 1, 2)
