"""The layer map: one cell a layer with its number, and a sentence that names the extremes."""

import numpy as np
import pandas as pd
import pytest

from workbench.views.theme import DARK, LIGHT, Theme
from workbench.views.weights import layer_map

NAMES = ["m.0.q_proj", "m.0.down_proj", "m.1.q_proj", "m.1.down_proj", "lm_head"]
TABLE = pd.DataFrame(
    {
        "name": NAMES,
        "block": [0, 0, 1, 1, None],
        "matrix": ["self_attn.q_proj", "mlp.down_proj", "self_attn.q_proj", "mlp.down_proj", "lm_head"],
        "kurtosis": [1.5, 0.25, 12.0, -0.5, 3.0],
        "bits_per_weight": [np.nan, 2.25, np.nan, 3.5, np.nan],
    }
)


def test_each_layer_has_the_cell_of_its_block_and_matrix() -> None:
    heat = layer_map.draw_layer_map(TABLE, "kurtosis", None).plot["data"][0]
    assert (heat["y"], heat["x"]) == (["0", "1", "outside"], ["q_proj", "down_proj", "lm_head"])
    names, values = np.array(heat["customdata"])[..., 0].ravel(), np.array(heat["z"]).ravel()
    cells = dict(zip(names, values, strict=True))
    assert {name: cells[name] for name in NAMES} == dict(zip(TABLE["name"], TABLE["kurtosis"], strict=True))
    assert np.isnan(np.array(heat["z"])).sum() == 9 - 5


def test_numbers_stand_in_their_cells_and_against_them() -> None:
    figure = layer_map.draw_layer_map(TABLE, "kurtosis", None)
    heat, notes = figure.plot["data"][0], figure.plot["layout"]["annotations"]
    assert {(note["x"], note["y"]): note["text"] for note in notes} == {
        (0, 0): "1.5", (1, 0): ".25", (0, 1): "12", (1, 1): "-.50", (2, 2): "3.0",
    }  # fmt: skip
    bright = {note["text"] for note in notes if note["font"]["color"] != "#ffffff"}
    assert bright == {"12"}, "cividis is bright above the middle of its range"
    assert np.nanmax(np.array(heat["z"])) == 12


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_the_selected_layer_is_framed(theme: Theme) -> None:
    (frame,) = layer_map.draw_layer_map(TABLE, "kurtosis", "m.1.down_proj", theme=theme).plot["layout"]["shapes"]
    assert (frame["x0"], frame["x1"], frame["y0"], frame["y1"]) == (0.5, 1.5, 0.5, 1.5)
    assert frame["line"]["color"] == theme.accent
    assert layer_map.draw_layer_map(TABLE, "kurtosis", None).plot["layout"]["shapes"] == []


def test_the_sentence_names_the_highest_and_the_lowest() -> None:
    answer = layer_map.draw_layer_map(TABLE, "kurtosis", None).answer
    assert answer == "Highest kurtosis: block 1 · q_proj (12); lowest: block 1 · down_proj (-0.5)."


def test_the_sentence_says_how_many_layers_are_measured() -> None:
    answer = layer_map.draw_layer_map(TABLE, "bits_per_weight", None).answer
    assert "block 1 · down_proj (3.50); lowest: block 0 · down_proj (2.25) (2 of 5 layers measured)" in answer


def test_before_any_result_the_sentence_says_what_to_do() -> None:
    nothing = TABLE.assign(bits_per_weight=np.nan)
    assert (
        "No layer has a value for stored bits yet: quantize a layer"
        in layer_map.draw_layer_map(nothing, "bits_per_weight", None).answer
    )


def test_equal_layers_have_no_extremes() -> None:
    assert (
        layer_map.draw_layer_map(TABLE.assign(kurtosis=2.0), "kurtosis", None).answer == "All 5 layers have the same kurtosis: 2."
    )


def test_the_table_is_the_layers() -> None:
    table = layer_map.draw_layer_map(TABLE, "kurtosis", None).table
    assert table["name"].tolist() == NAMES
    assert table["kurtosis"].tolist() == TABLE["kurtosis"].tolist()


@pytest.mark.parametrize(
    ("matrices", "labels"),
    [
        (
            ["mlp.experts.gate_up_proj.0", "mlp.experts.gate_up_proj.1", "mlp.experts.down_proj.0"],
            ["gate_up_proj.0", "gate_up_proj.1", "down_proj.0"],
        ),
        (["self_attn.out_proj", "cross_attn.out_proj", "mlp.fc1"], ["self_attn.out_proj", "cross_attn.out_proj", "fc1"]),
    ],
    ids=["experts", "two of one name"],
)
def test_no_layer_hides_another(matrices: list[str], labels: list[str]) -> None:
    table = pd.DataFrame({"name": matrices, "block": 0, "matrix": matrices, "kurtosis": [1.0, 2.0, 3.0]})
    heat, _ = layer_map.draw_layer_map(table, "kurtosis", None).plot["data"]
    assert heat["x"] == labels
    assert [cell[0] for cell in heat["customdata"][0]] == matrices
