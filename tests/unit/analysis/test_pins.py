"""Pins keep what was measured when they were made, under labels that say the recipe; nothing is overwritten by mistake."""

from pathlib import Path

import pytest
import torch

import workbench as wb
from workbench.analysis.decisions.pins import LAYER_COLUMNS, MODEL_COLUMNS, Pins, label_recipes, make_unique_label
from workbench.analysis.predictions.generation_speed import measure_layer_seconds
from workbench.artifact.quantized_copy import build_packed_copy
from workbench.jobs import run_steps
from workbench.models import ModelHandle
from workbench.models.perplexity import perplexity
from workbench.models.text import Text

QUERY = "model.layers.0.self_attn.q_proj"
STORY = Text("story", ("The small dog ran to the river. " * 6, "A bird sat on the roof. " * 6))


@pytest.fixture(scope="module")
def model(tiny_models: dict[str, Path]) -> ModelHandle:
    return wb.open_model(tiny_models["llama"])


def test_layers_are_pinned_under_their_recipes(model: ModelHandle) -> None:
    pins = Pins()
    made = [wb.quantize(model, QUERY, wb.recipe("rtn", bits=bits, group=32)) for bits in (2, 4, 2)]
    assert [pins.pin_layer(result, model.weight(QUERY)) for result in made] == [
        "rtn bits=2 group=32",
        "rtn group=32",
        "rtn bits=2 group=32 (2)",
    ]
    assert pins.pin_layer(made[0], model.weight(QUERY)) == "rtn bits=2 group=32", "the same result is one pin"
    table = pins.layer_table()
    assert table["bits_per_weight"].tolist() == [result.bits_per_weight for result in made]
    assert table["relative_error"].tolist() == [result.relative_error for result in made]
    assert (table["microseconds"] > 0).all()
    pins.unpin("rtn group=32")
    pins.unpin("never pinned")
    assert list(pins.layers) == ["rtn bits=2 group=32", "rtn bits=2 group=32 (2)"]


def test_a_pinned_model_is_read_and_run(model: ModelHandle) -> None:
    pins, whole = Pins(), wb.quantize_model(model, wb.recipe("rtn", bits=2, group=32))
    steps = pins.pin_model(model, whole.layers, {}, STORY, "The small dog")
    shares = []
    label = run_steps(steps, shares.append)
    assert label == "rtn bits=2 group=32"
    assert shares == sorted(shares)
    assert 0 == shares[0] < shares[-1] < 1
    (row,) = pins.model_table().to_dict("records")
    read = perplexity(build_packed_copy(model, whole.layers), STORY)
    assert row["perplexity"] == pytest.approx(read.perplexity)
    assert (row["perplexity_low"], row["perplexity_high"]) == pytest.approx(read.perplexity_interval)
    assert row["bits_per_weight"] == whole.bits_per_weight
    assert row["quantized_bytes"] == whole.ledger.total_bits / 8
    assert row["tokens_per_second"] > 0
    assert row["resident_bytes"] > 0


def test_labels_say_how_much_is_quantized_and_by_how_many_recipes(model: ModelHandle) -> None:
    whole = list(wb.quantize_model(model, wb.recipe("rtn")).layers.values())
    other = wb.quantize(model, QUERY, wb.recipe("rtn", bits=2))
    assert label_recipes(whole, len(whole)) == "rtn"
    assert label_recipes(whole[:3], len(whole)) == f"rtn, 3 of {len(whole)} layers"
    assert label_recipes([other, *whole[1:]], len(whole)) == "a mix of 2 recipes"


def test_a_label_that_is_taken_gets_a_number() -> None:
    assert make_unique_label("a", {}) == "a"
    assert make_unique_label("a", {"a": 1, "a (2)": 2}) == "a (3)"


def test_without_pins_the_tables_are_empty() -> None:
    assert list(Pins().layer_table().columns) == LAYER_COLUMNS
    assert list(Pins().model_table().columns) == MODEL_COLUMNS


def test_seconds_of_a_layer_are_those_of_one_input(model: ModelHandle) -> None:
    packed = wb.quantize(model, QUERY, wb.recipe("rtn", bits=2, group=32)).packed
    ours, torchs = measure_layer_seconds(packed, torch.zeros(packed.rows, packed.cols), calls=5)
    assert 0 < ours < 1
    assert 0 < torchs < 1
