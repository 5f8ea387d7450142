"""Figures of pins: every pin is there, the sentence names the best one, and the table is what is drawn."""

import pandas as pd
import pytest
import torch

from workbench.analysis.decisions.pins import LAYER_COLUMNS, MODEL_COLUMNS
from workbench.views.predictions import pinned
from workbench.views.theme import LIGHT

LAYERS = pd.DataFrame(
    [("rtn", "a", 4.2, 4.0, 0.01, 0.005, 12.0, 1.5), ("btc", "a", 0.9, 0.8, 0.3, 0.1, 20.0, 0.9)], columns=LAYER_COLUMNS
)
MODELS = pd.DataFrame(
    [
        ("rtn", 4.2, 4.0, 2e6, 7.9, 7.4, 8.4, 1.0, 1.0, 1.0, 300.0, 5_000_000),
        ("btc", 0.9, 0.8, 5e5, 10.1, 9.6, 10.7, 1.28, 1.2, 1.36, 200.0, 2_000_000),
    ],
    columns=MODEL_COLUMNS,
)


@pytest.mark.parametrize(("second", "scope"), [("a", "pinned, all for one layer"), ("b", "pinned, for 2 layers")])
def test_error_against_bits_says_whose_results_these_are(second: str, scope: str) -> None:
    figure = pinned.draw_error_by_bits(LAYERS.assign(name=["a", second]), "btc")
    assert figure.answer.startswith(f"2 results {scope}; the smallest output error is 0.005 with rtn")
    assert figure.plot["data"][0]["text"] == ["rtn", "btc"]
    assert [edge == LIGHT.accent for edge in figure.plot["data"][0]["marker"]["line"]["color"]] == [False, True]


def test_weight_errors_are_quantiles_over_the_spread() -> None:
    original = torch.arange(-50.0, 51.0).reshape(1, -1)
    figure = pinned.draw_weight_errors(original, {"near": original + 1, "far": original + 4})
    near, far = figure.plot["data"]
    assert near["x"] == pytest.approx([1 / float(original.std())] * 21)
    assert far["x"] == pytest.approx([4 / float(original.std())] * 21)
    assert "with near and 0.137 with far" in figure.answer
    assert figure.table["far"].tolist() == far["x"]


def test_models_are_compared_by_perplexity_with_its_interval() -> None:
    figure = pinned.draw_pinned_models(MODELS, "btc")
    assert figure.answer == "2 models are pinned; rtn has the lowest perplexity: 7.90 (95 %: 7.40 to 8.40) at 4.20 stored bits."
    better = MODELS.assign(perplexity=[7.9, 7.5], ratio=[1.0, 0.95], ratio_low=[1.0, 0.9], ratio_high=[1.0, 1.01])
    wanted = "0.90 stored bits, 0.95 times rtn's (95 %: 0.9 to 1.01): no significant difference on this text."
    assert pinned.draw_pinned_models(better, "btc").answer.endswith(wanted)
    (trace,) = figure.plot["data"]
    assert trace["error_y"]["array"] == pytest.approx([0.5, 0.6])
    assert trace["error_y"]["arrayminus"] == pytest.approx([0.5, 0.5])
    assert trace["mode"] == "markers+text"
