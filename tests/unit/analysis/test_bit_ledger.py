"""The ledger explained adds up: from nominal to stored, in a tree, and to the bytes of a file."""

from pathlib import Path

import pytest
import torch

import workbench as wb
from workbench import presets
from workbench.analysis.decisions import bit_ledger
from workbench.bits import BitEntry, BitLedger
from workbench.models import ModelHandle

LAYER = "model.layers.0.self_attn.q_proj"
LEDGER = BitLedger(
    (
        BitEntry("0.0.uniform codes", 8_100, "codes of some"),
        BitEntry("0.1.planes signs", 2_000, "signs of the others"),
        BitEntry("0.masked map", 1_000, "who is who"),
        BitEntry("0.0.uniform scale", 500, "steps"),
        BitEntry("0.1.uniform scale", 300, "steps"),
    ),
    1_000,
    8.0,
)


def test_the_way_from_nominal_to_stored_names_every_item() -> None:
    table = bit_ledger.tabulate_overhead(LEDGER).set_index("item")
    assert list(table.index) == [
        "nominal", "codes beyond nominal", "planes signs", "masked map", "uniform scale", "stored"
    ]  # fmt: skip
    assert table["bits_per_weight"].tolist() == pytest.approx([8.0, 0.1, 2.0, 1.0, 0.8, 11.9])
    assert "uniform codes" in table["why"]["nominal"]


@pytest.mark.parametrize("name", presets.list_presets())
def test_the_steps_of_every_preset_add_up_to_what_it_stores(builtin: ModelHandle, name: str) -> None:
    preset = presets.find(name)()
    stats = wb.calibrate(builtin, wb.text("calibration"), tokens=256, layers=[LAYER]) if preset.needs_calibration else None
    result = wb.quantize(builtin, LAYER, preset.recipe(), stats=stats)
    steps = bit_ledger.tabulate_overhead(result.ledger)["bits_per_weight"]
    assert steps.iloc[:-1].sum() == pytest.approx(steps.iloc[-1]) == pytest.approx(result.bits_per_weight)
    assert steps.iloc[0] == result.nominal_bits
    found = bit_ledger.measure_layer_file(result)
    assert found.agree, found


def test_a_tree_of_layers_adds_up_at_every_node() -> None:
    names = ["model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj", "model.layers.1.mlp.up_proj"]
    table = bit_ledger.tabulate_ledger_tree(dict.fromkeys(names, LEDGER)).set_index("id")
    assert table["bits"][""] == 3 * 11_900
    assert table["label"]["block 0"] == "block 0"
    assert table["bits"][f"{names[0]}|uniform scale"] == 800
    for place, row in table.iterrows():
        children = table[(table["parent"] == place) & (table.index != place)]
        assert children.empty or children["bits"].sum() == row["bits"]
        assert row["share"] == pytest.approx(row["bits"] / (3 * 11_900))


def test_one_layer_is_a_tree_of_its_items() -> None:
    table = bit_ledger.tabulate_ledger_tree({"model.layers.0.mlp.up_proj": LEDGER})
    assert table["parent"].tolist() == [""] * len(table)
    assert table["label"].iloc[0] == "model.layers.0.mlp.up_proj"
    assert len(table) == 1 + 4


def test_a_saved_model_takes_the_bytes_that_its_ledger_says(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    model = wb.open_model(tiny_models["llama"])
    folder = wb.save(wb.quantize_model(model, wb.recipe("rtn", bits=3)), tmp_path / "out", model)
    found = bit_ledger.measure_saved_file(folder)
    assert found.agree
    assert found.file == (folder / "packed.safetensors").stat().st_size
    with (folder / "packed.safetensors").open("ab") as file:
        file.write(b"!")
    assert not bit_ledger.measure_saved_file(folder).agree


def test_a_wrong_ledger_is_found_on_disk(builtin: ModelHandle) -> None:
    result = wb.quantize(builtin, LAYER, wb.recipe("rtn", bits=2))
    first = result.ledger.entries[0]
    spoiled = BitLedger((BitEntry(first.item, first.bits + 8, first.why), *result.ledger.entries[1:]), result.ledger.weights, 2.0)
    object.__setattr__(result, "ledger", spoiled)
    assert not bit_ledger.measure_layer_file(result).agree
    assert torch.isfinite(result.weight()).all()
