"""Quant cards: the same but for times, counted from what is stored, and a diff that finds one changed weight."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from workbench.analysis.decisions.quant_card import collect_card_facts, hash_tree, strip_model_path
from workbench.analysis.decisions.quant_card_diff import Tolerances, diff_cards
from workbench.analysis.decisions.quant_card_file import read_facts
from workbench.artifact import load, save
from workbench.errors import ArtifactError, ModelError
from workbench.models import ModelHandle, open_model
from workbench.quantized import QuantizedModel

PATTERN = "*.0.mlp.*"
TOKENS = 64
RECIPE = wb.recipe("rtn", bits=3, group=64)


@pytest.fixture(scope="module")
def quantized(builtin: ModelHandle) -> QuantizedModel:
    stats = wb.calibrate(builtin, wb.text("calibration"), tokens=256)
    return wb.quantize_model(builtin, RECIPE, stats, PATTERN)


@pytest.fixture(scope="module")
def folder(quantized: QuantizedModel, builtin: ModelHandle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(quantized, tmp_path_factory.mktemp("card") / "out", builtin)


@pytest.fixture(scope="module")
def facts(folder: Path, builtin: ModelHandle) -> dict[str, Any]:
    return collect_card_facts(folder, builtin, tokens=TOKENS)


def without_times(card: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in card.items() if key != "times"}


def test_two_cards_of_one_recipe_and_seed_differ_in_times_only(
    facts: dict[str, Any], builtin: ModelHandle, tmp_path: Path
) -> None:
    stats = wb.calibrate(builtin, wb.text("calibration"), tokens=256)
    again = save(wb.quantize_model(builtin, RECIPE, stats, PATTERN), tmp_path / "again", builtin)
    second = collect_card_facts(again, builtin, tokens=TOKENS)
    assert json.dumps(without_times(second)) == json.dumps(without_times(facts))
    assert second["times"] != facts["times"]
    assert diff_cards(facts, second).differences == ()


def test_figures_are_those_of_compare(facts: dict[str, Any], folder: Path, builtin: ModelHandle) -> None:
    found = wb.compare(builtin, load(folder), wb.text("evaluation"), tokens=TOKENS)
    assert facts["figures"]["kl"] == pytest.approx(found.kl, rel=1e-9)
    assert facts["figures"]["ratio"] == pytest.approx(found.ratio.ratio, rel=1e-9)
    assert facts["figures"]["perplexity_interval"] is found.perplexity_interval is None  # one document
    assert facts["figures"]["kl_quantiles"]["0.5"] == pytest.approx(found.kl_median, rel=1e-9)


def test_bits_and_bytes_are_those_on_disk(facts: dict[str, Any], folder: Path) -> None:
    assert facts["file"]["bytes"] == (folder / "packed.safetensors").stat().st_size
    assert facts["file"]["bits_per_weight"] * facts["file"]["weights"] == pytest.approx(8 * facts["file"]["bytes"])
    assert sum(entry["bits"] for entry in facts["ledger"]["entries"]) / facts["ledger"]["weights"] == pytest.approx(
        facts["ledger"]["bits_per_weight"]
    )


def test_hashes_name_everything_that_went_in(facts: dict[str, Any], builtin: ModelHandle, quantized: QuantizedModel) -> None:
    hashes = facts["hashes"]
    assert hashes["original"] == builtin.fingerprint
    assert hashes["calibration_text"] == wb.text("calibration").fingerprint
    assert hashes["evaluation_text"] == wb.text("evaluation").fingerprint
    assert hashes["layers"] == {name: hash_tree(layer.packed) for name, layer in quantized.layers.items()}
    assert {"python", "torch", "numba", "processor"} <= set(facts["environment"])


def changed(quantized: QuantizedModel, layer: str) -> QuantizedModel:
    """One code of one layer's stream flipped in its lowest bit."""
    own = quantized.layers[layer]
    codes = own.packed.tensors["codes"].clone()
    codes[17] ^= 1
    tampered = replace(own, packed=replace(own.packed, tensors={**own.packed.tensors, "codes": codes}))
    return replace(quantized, layers={**quantized.layers, layer: tampered})


def test_a_changed_weight_is_found(
    quantized: QuantizedModel, facts: dict[str, Any], builtin: ModelHandle, tmp_path: Path
) -> None:
    layer = "model.layers.0.mlp.up_proj"
    other = collect_card_facts(save(changed(quantized, layer), tmp_path / "other", builtin), builtin, measured=False)
    found = diff_cards(facts, other)
    assert not found.same
    assert [(d.section, d.item) for d in found.differences if not d.within] == [("hashes", f"layers.{layer}")]
    assert found.skipped == ("figures were not compared, because the second has none",)


def test_a_changed_original_is_found(facts: dict[str, Any], folder: Path, tiny_models: dict[str, Path]) -> None:
    with pytest.raises(ModelError, match="were quantized from weights [0-9a-f]{16}"):
        collect_card_facts(folder, open_model(tiny_models["llama"]), tokens=TOKENS)
    other = copy.deepcopy(facts)
    other["hashes"]["original"] = "0" * 16
    assert [d.item for d in diff_cards(facts, other).differences] == ["original"]


@pytest.mark.parametrize(
    ("place", "change", "section", "limits"),
    [
        pytest.param(("figures", "perplexity"), 1.0005, "figures", {"perplexity": 1e-3}, id="perplexity"),
        pytest.param(("figures", "kl"), 1.01, "figures", {"kl": 1.0}, id="kl"),
        pytest.param(("figures", "top1_changed"), 1.01, "figures", {"top1": 1.0}, id="top-1"),
        pytest.param(("ledger", "bits_per_weight"), 1.01, "ledger", {"bits": 0.05}, id="stored-bits"),
        pytest.param(("layers", 0, "output_error"), 1.01, "errors", {"error": 0.02}, id="layer-error"),
    ],
)
def test_a_change_is_held_against_its_tolerance(
    facts: dict[str, Any], place: tuple, change: float, section: str, limits: dict[str, float]
) -> None:
    other: Any = copy.deepcopy(facts)
    owner = other
    for step in place[:-1]:
        owner = owner[step]
    owner[place[-1]] *= change
    zero = dict.fromkeys(Tolerances.__dataclass_fields__, 0.0)
    strict, loose = (diff_cards(facts, other, Tolerances(**{**zero, **given})) for given in ({}, limits))
    assert [d.section for d in strict.differences] == [section]
    assert (strict.same, loose.same) == (False, True)
    assert "above the allowed 0" in str(strict.differences[0])
    assert diff_cards(facts, other, Tolerances(**zero), allow=[section]).same


def test_figures_on_other_text_are_not_compared(facts: dict[str, Any]) -> None:
    other = copy.deepcopy(facts)
    other["figures"] |= {"tokens": 32, "perplexity": 99.0}
    found = diff_cards(facts, other)
    assert [(d.item, d.within) for d in found.differences] == [("tokens", False)]


def test_another_machine_is_told_and_passes(facts: dict[str, Any]) -> None:
    other = copy.deepcopy(facts)
    other["environment"]["torch"] = "2.99"
    found = diff_cards(facts, other)
    assert found.same
    assert [str(d) for d in found.differences] == [f"environment: torch was '{torch.__version__}' and is '2.99'"]


def test_another_recipe_is_told_by_its_field(facts: dict[str, Any]) -> None:
    other = copy.deepcopy(facts)
    other["recipe"]["plan"]["rules"][0]["recipe"]["coders"][0]["bits"] = 2
    assert [d.item for d in diff_cards(facts, other).differences] == ["plan.rules[0].recipe.coders[0].bits"]


def test_an_unknown_section_is_an_error(facts: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match="no section 'hash'; sections are recipe, ledger"):
        diff_cards(facts, facts, allow=["hash"])


def test_an_unsaved_model_has_a_card_without_a_file(
    quantized: QuantizedModel, facts: dict[str, Any], builtin: ModelHandle
) -> None:
    unsaved = collect_card_facts(quantized, builtin, tokens=TOKENS)
    assert unsaved["file"] is None
    assert unsaved["figures"]["kl"] == pytest.approx(facts["figures"]["kl"], rel=1e-6)
    assert diff_cards(facts, unsaved).same


@pytest.mark.parametrize(
    ("source", "name"),
    [("builtin", "builtin"), ("org/model", "org/model"), ("/home/somebody/models/tiny", "tiny"), ("~/models/tiny", "tiny")],
)
def test_a_card_names_no_folder(source: str, name: str) -> None:
    assert strip_model_path(source) == name


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("no json", "a.json is not JSON: Expecting value"),
        ("[1]", "a.json is not a quant card; make one with"),
        ('{"kind": "else"}', "a.json is not a quant card; make one with"),
        ("<html></html>", "a.json is a page, but not a quant card; make one with"),
    ],
    ids=["text", "list", "another", "page"],
)
def test_another_file_is_no_card(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ArtifactError, match=said):
        read_facts(tmp_path / "a.json")


def test_a_later_version_is_named(tmp_path: Path, facts: dict[str, Any]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(facts | {"version": 9}))
    with pytest.raises(ArtifactError, match="version 9; this workbench reads 'workbench quant card' version 1"):
        read_facts(tmp_path / "a.json")
