"""The figure of all presets: a dot for each trial, the bench's recipe marked, and the best method in the sentence."""

import itertools
import math

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.analysis.decisions.preset_trials import COLUMNS
from workbench.presets.preset import FAMILIES
from workbench.views.decisions import preset_trials as views
from workbench.views.figure import Figure
from workbench.views.theme import LIGHT

TABLE = pd.DataFrame(
    [
        ("Round to nearest", "round to nearest", "rtn:bits=2", 2.2, 2.0, 0.1, 0.05, 64),
        ("Round to nearest", "round to nearest", "rtn", 4.2, 4.0, 0.01, 0.005, 64),
        ("GPTQ", "compensation", "gptq:bits=3", 3.2, 3.0, 0.05, 0.004, 64),
        ("BTC-LLM", "codebook", "btc", 0.9, 0.8, 0.5, 0.2, 64),
    ],
    columns=COLUMNS,
)


def test_every_trial_is_a_dot_and_a_row() -> None:
    figure = views.draw_preset_trials(TABLE, "rtn", 256)
    dots = {recipe: (x, y) for t in figure.plot["data"] for recipe, x, y in zip(t["customdata"], t["x"], t["y"], strict=True)}
    rows = zip(TABLE["recipe"], TABLE["bits_per_weight"], TABLE["output_error"], strict=True)
    assert dots == {recipe: (bits, error) for recipe, bits, error in rows}
    assert figure.table["recipe"].tolist() == TABLE["recipe"].tolist()
    assert [trace["name"] for trace in figure.plot["data"]] == ["Round to nearest", "GPTQ", "BTC-LLM"]


def test_the_answer_names_the_best_within_each_budget_and_the_rows() -> None:
    smallest = "0.2 at up to 1 stored bit (BTC-LLM), 0.2 at up to 2 stored bits (BTC-LLM)"
    answer = f"lowest output error {smallest}, 0.004 at up to 4 stored bits (GPTQ)."
    assert views.draw_preset_trials(TABLE, None, 256).answer == f"≈ On 64 of 256 rows: {answer}"
    assert views.draw_preset_trials(TABLE, None, 64).answer == f"On all 64 rows: {answer}"
    named = [text for trace in views.draw_preset_trials(TABLE, None, 64).plot["data"] for text in trace["text"]]
    assert named == ["", "", "GPTQ", "BTC-LLM"], "only these have their names beside them"


def find_boxes(figure: Figure, width: int, height: int) -> list[tuple[float, float, float, float]]:
    """Where the labels stand in a figure of this size, as Plotly places them: left, top, right and bottom in pixels."""
    across, down = width - 72, height - 48
    low, high = figure.plot["layout"]["yaxis"]["range"]
    most = 1.05 * figure.table["bits_per_weight"].max()
    boxes = []
    for trace in figure.plot["data"]:
        for x, y, text, side in zip(trace["x"], trace["y"], trace["text"], trace["textposition"], strict=True):
            if text:
                left = x / most * across + (6 if "right" in side else -6 - 6 * len(text))
                top = (high - math.log10(y)) / (high - low) * down - (0 if "bottom" in side else 13)
                boxes.append((left, top, left + 6 * len(text), top + 13))
    return boxes


@pytest.mark.parametrize(("width", "height"), [(220, 190), (520, 320)])
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_labels_overlap_no_other_label(width: int, height: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 30))
    table = pd.DataFrame(
        {
            "title": [
                data.draw(st.sampled_from(["QTIP", "Binary factors", "BTC-LLM sign planes"])) + str(n) for n in range(count)
            ],
            "family": "codebook",
            "recipe": [f"r{number}" for number in range(count)],
            "bits_per_weight": data.draw(st.lists(st.floats(0.5, 4.5), min_size=count, max_size=count)),
            "nominal_bits": 1.0,
            "relative_error": 0.1,
            "output_error": data.draw(st.lists(st.floats(1e-3, 0.5), min_size=count, max_size=count)),
            "tried_rows": 64,
        }
    )
    figure = views.draw_preset_trials(table, None, 64, width=width, height=height)
    boxes = find_boxes(figure, width, height)
    for one, other in itertools.combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
    assert all(box[0] >= 0 and box[2] <= width - 56 for box in boxes)


def test_where_nothing_is_below_four_bits_the_smallest_is_named() -> None:
    wide = TABLE.iloc[[1]].reset_index(drop=True)
    assert views.draw_preset_trials(wide, None, 64).answer.endswith("0.005 at up to 5 stored bits (Round to nearest).")


def test_the_recipe_on_the_bench_is_marked() -> None:
    figure = views.draw_preset_trials(TABLE, "rtn", 256)
    edges = figure.plot["data"][0]["marker"]["line"]["color"]
    assert edges == [LIGHT.surface, LIGHT.accent]


def test_without_calibration_weight_errors_are_drawn() -> None:
    figure = views.draw_preset_trials(TABLE.assign(output_error=float("nan")), None, 256)
    assert figure.plot["layout"]["yaxis"]["title"]["text"] == "weight error (log scale)"
    assert figure.plot["data"][1]["y"] == [0.05]


def test_one_error_of_zero_leaves_no_logarithmic_axis() -> None:
    exact = TABLE.assign(output_error=[0.05, 0.0, 0.004, 0.2])
    assert "type" not in views.draw_preset_trials(exact, None, 256).plot["layout"]["yaxis"]


@pytest.mark.parametrize("first", FAMILIES[1:])
def test_every_family_has_a_colour_of_its_own(first: str) -> None:
    others = [views.choose_family_color(family) for family in FAMILIES[1:] if family != first]
    assert views.choose_family_color(first) not in others
