"""Models against their stored bits: every mark where its numbers say, the chosen one outlined, a scale that fits."""

import pandas as pd
import pytest

from workbench.views.predictions import rate_distortion
from workbench.views.predictions.model_table import draw_kl_by_bits, draw_perplexity_by_bits
from workbench.views.theme import LIGHT

TABLE = pd.DataFrame(
    [
        ("original", 16.0, 0.0, 0.0, 0.0, 7.0, 6.5, 7.5, 1.0, 1.0, 1.0),
        ("fine", 4.2, 0.01, 0.0, 0.02, 7.1, 6.6, 7.6, 1.014, 1.01, 1.02),
        ("rough", 1.1, 0.5, 0.4, 0.6, 12.0, 11.0, 13.0, 1.7, 1.6, 1.8),
    ],
    columns=[
        "model",
        "bits_per_weight",
        "kl",
        "kl_low",
        "kl_high",
        "perplexity",
        "perplexity_low",
        "perplexity_high",
        "ratio",
        "ratio_low",
        "ratio_high",
    ],
)


def test_marks_and_intervals() -> None:
    (trace,) = rate_distortion.plot(TABLE, "model", "perplexity", "fine", LIGHT)["data"]
    assert (trace["x"], trace["y"], trace["text"]) == ([16.0, 4.2, 1.1], [7.0, 7.1, 12.0], ["original", "fine", "rough"])
    assert trace["error_y"]["array"] == pytest.approx([0.5, 0.5, 1.0])
    assert trace["error_y"]["arrayminus"] == pytest.approx([0.5, 0.5, 1.0])
    assert [colour == LIGHT.accent for colour in trace["marker"]["line"]["color"]] == [False, True, False]
    assert trace["textposition"] == ["top center", "bottom center", "top center"], "names of neighbours do not meet"


@pytest.mark.parametrize(("rows", "scale"), [(TABLE, None), (TABLE.iloc[2:], "log")], ids=["down to 0", "all above 0"])
def test_the_scale_holds_everything(rows: pd.DataFrame, scale: str | None) -> None:
    axis = rate_distortion.plot(rows, "model", "kl", None, LIGHT)["layout"]["yaxis"]
    assert axis.get("type") == scale
    assert ("log scale" in axis["title"]["text"]) == (scale == "log")


def test_models_are_told_in_a_sentence() -> None:
    closest, reads = draw_kl_by_bits(TABLE), draw_perplexity_by_bits(TABLE)
    assert "fine is the closest to the original: KL 0.01 (95 %: 0 to 0.02), with 4.20 stored bits" in closest.answer
    assert "rough stores the least, 1.10 bits, at KL 0.5" in closest.answer
    assert closest.plot["data"][0]["text"] == ["fine", "rough"]
    wanted = "The original has perplexity 7.00 (95 %: 6.50 to 7.50); of 2 quantized models, fine has the lowest perplexity: 7.10"
    assert reads.answer.startswith(wanted)
    assert reads.answer.endswith("at 4.20 stored bits, 1.014 times the original's (95 %: 1.01 to 1.02).")
    assert reads.plot["data"][0]["text"] == ["original", "fine", "rough"]
