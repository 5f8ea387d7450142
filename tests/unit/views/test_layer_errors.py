"""Error figures: the bars, points and sentences are the numbers of the results."""

import pandas as pd
import pytest

from workbench.views.predictions import layer_errors as errors
from workbench.views.theme import DARK, LIGHT, Theme

LAYERS = pd.DataFrame(
    {
        "name": ["m.0.q_proj", "m.0.down_proj"],
        "block": [0, 0],
        "matrix": ["self_attn.q_proj", "mlp.down_proj"],
        "bits_per_weight": [2.25, 3.25],
        "nominal_bits": [2.0, 3.0],
        "relative_error": [0.2, 0.05],
        "output_error": [0.1, 0.02],
    }
)
RESULTS = pd.DataFrame(
    {
        "recipe": ["rtn bits=2", "gptq bits=2", "rtn bits=4"],
        "bits_per_weight": [2.25, 2.28, 4.25],
        "nominal_bits": [2.0, 2.0, 4.0],
        "relative_error": [0.2, 0.3, 0.01],
        "output_error": [0.1, 0.05, 0.004],
    }
)


def test_cells_are_output_errors_and_tell_weight_errors() -> None:
    figure = errors.draw_layer_errors(LAYERS, None)
    cells = figure.plot["data"][0]
    assert (cells["x"], cells["y"], cells["z"]) == (["q_proj", "down_proj"], ["0"], [[0.1, 0.02]])
    assert cells["customdata"] == [
        [["m.0.q_proj", "0.1", "<br>weight error 0.2"], ["m.0.down_proj", "0.02", "<br>weight error 0.05"]]
    ]
    assert figure.table["output_error"].tolist() == [0.1, 0.02]
    assert "Of 2 quantized layers, block 0 · q_proj has the largest output error, 0.1" in figure.answer
    assert "block 0 · down_proj the smallest, 0.02" in figure.answer


def test_without_calibration_cells_are_weight_errors() -> None:
    figure = errors.draw_layer_errors(LAYERS.assign(output_error=float("nan")), None)
    assert figure.plot["data"][0]["z"] == [[0.2, 0.05]]
    assert figure.plot["data"][0]["customdata"][0][0][2] == ""
    assert "largest weight error, 0.2" in figure.answer


def test_one_layer_is_told_as_a_share() -> None:
    answer = errors.draw_layer_errors(LAYERS.iloc[:1], None).answer
    assert answer == "block 0 · q_proj has output error 0.1: 10 % of the energy is lost."


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_the_selected_layer_stands_out(theme: Theme) -> None:
    (frame,) = errors.draw_layer_errors(LAYERS, "m.0.down_proj", theme=theme).plot["layout"]["shapes"]
    assert (frame["x0"], frame["x1"], frame["line"]["color"]) == (0.5, 1.5, theme.accent)


def test_results_stand_at_their_stored_bits_with_the_nominal_beside() -> None:
    figure = errors.draw_error_by_bits(RESULTS, "gptq bits=2")
    stored, nominal = figure.plot["data"][:2]
    assert (stored["x"], stored["y"]) == ([2.25, 2.28, 4.25], [0.1, 0.05, 0.004])
    assert (nominal["x"], nominal["y"]) == ([2.0, 2.0, 4.0], [0.1, 0.05, 0.004])
    links = [(line["x0"], line["x1"], line["y0"]) for line in figure.plot["layout"]["shapes"]]
    assert links == [(2.0, 2.25, 0.1), (2.0, 2.28, 0.05), (4.0, 4.25, 0.004)]
    assert stored["marker"]["line"]["color"] == [LIGHT.surface, LIGHT.accent, LIGHT.surface]
    assert figure.table["recipe"].tolist() == RESULTS["recipe"].tolist()


def test_the_sentence_names_the_best_result() -> None:
    answer = errors.draw_error_by_bits(RESULTS, None).answer
    expected = "the smallest output error is 0.004 with rtn bits=4, which stores 4.25 bits per weight."
    assert answer == f"3 results for this layer; {expected}"


@pytest.mark.parametrize(("smallest", "scale"), [(0.004, "log"), (0.0, "linear")], ids=["positive", "zero"])
def test_an_error_of_zero_can_be_drawn(smallest: float, scale: str) -> None:
    results = RESULTS.assign(output_error=[0.1, 0.05, smallest])
    assert errors.draw_error_by_bits(results, None).plot["layout"]["yaxis"].get("type", "linear") == scale
