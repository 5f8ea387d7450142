"""Trials of presets on a layer: what they promise is what quantizing the layer gives, and what was tried once stays."""

import dataclasses
from pathlib import Path

import pytest
import torch

import workbench as wb
from tests.battery.cases import correlated, quantize
from workbench import presets
from workbench.analysis.decisions import preset_trials
from workbench.analysis.decisions.preset_trials import (
    COLUMNS,
    Trial,
    count_layer_bits,
    list_families,
    list_trial_recipes,
    spread_rows,
    tabulate_trials,
    try_presets_steps,
)
from workbench.calibration import CalibrationStats
from workbench.jobs import run_steps
from workbench.models import ModelHandle
from workbench.presets.preset import FAMILIES
from workbench.quantizers.pipeline import needs_moment
from workbench.store import Store

QUERY = "model.layers.0.self_attn.q_proj"
FEW = ["rtn:group=32", "gptq:bits=2,group=32", "rtn:group=7"]


@pytest.fixture(scope="module")
def model(tiny_models: dict[str, Path]) -> ModelHandle:
    return wb.open_model(tiny_models["llama"])


@pytest.fixture(scope="module")
def stats(model: ModelHandle) -> CalibrationStats:
    return wb.calibrate(model, wb.text("calibration"), tokens=512)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three recipes, of which the last does not fit a layer of 64 columns."""
    monkeypatch.setattr(preset_trials, "list_trial_recipes", lambda *, calibrated: FEW if calibrated else [FEW[0], FEW[2]])


@pytest.mark.parametrize("name", presets.list_presets())
def test_every_preset_says_what_it_is(name: str) -> None:
    preset = presets.find(name)
    assert preset.family in FAMILIES
    assert preset.title
    assert preset.title != name, "as papers write it"
    assert preset.summary.endswith(".")
    assert preset.summary.count(".") == 1, "one sentence"


def test_every_preset_is_in_one_family() -> None:
    names = [preset.name for members in list_families().values() for preset in members]
    assert sorted(names) == [name for name in presets.list_presets() if name != "none"]
    assert list(list_families()) == [family for family in FAMILIES if family != "original"]
    assert [preset.name for preset in list_families()["salience"]] == ["pb-llm", "billm", "stbllm", "arb-llm"], "by date"


def test_defaults_come_first_then_rates_in_range() -> None:
    recipes = list_trial_recipes(calibrated=True)
    count = len(presets.list_presets()) - 1
    assert sorted(recipes[:count]) == [name for name in presets.list_presets() if name != "none"]
    assert [spelled for spelled in recipes if spelled.startswith(("rtn", "btc:", "nanoquant"))] == [
        "rtn", "nanoquant", "rtn:bits=1", "rtn:bits=2", "rtn:bits=3", "btc:bits=1.0", "btc:bits=2.0",
        "nanoquant:bits=0.5", "nanoquant:bits=2.0",
    ]  # fmt: skip
    without = list_trial_recipes(calibrated=False)
    assert without == [spelled for spelled in recipes if not needs_moment(presets.parse(spelled))]
    assert "gptq" not in without


@pytest.mark.usefixtures("few")
def test_a_trial_is_what_quantizing_the_layer_gives(model: ModelHandle, stats: CalibrationStats, tmp_path: Path) -> None:
    steps: list[preset_trials.Tried] = []
    trials = run_steps(try_presets_steps(model, QUERY, stats, Store(tmp_path)), steps.append)
    for spelled in FEW[:2]:
        result = wb.quantize(model, QUERY, presets.parse(spelled), stats)
        trial = trials[spelled]
        assert (trial.rows, trial.problem) == (64, "")
        assert trial.bits_per_weight == pytest.approx(result.bits_per_weight)
        assert trial.nominal_bits == result.nominal_bits
        assert (trial.relative_error, trial.output_error) == (result.relative_error, result.output_error)
    assert "group size 7 does not divide 64 columns" in trials["rtn:group=7"].problem
    assert [len(step.trials) for step in steps] == sorted(len(step.trials) for step in steps), "one after the other"
    assert {len(step.trials) for step in steps} == {0, 1, 2, 3}
    assert [steps[0].fraction, steps[-1].fraction] == [0, 1]


@pytest.mark.usefixtures("few")
def test_without_calibration_there_is_no_output_error(model: ModelHandle, tmp_path: Path) -> None:
    trials = run_steps(try_presets_steps(model, QUERY, None, Store(tmp_path)))
    assert list(trials) == ["rtn:group=32", "rtn:group=7"]
    assert trials["rtn:group=32"].output_error is None
    (row,) = wb.measures.preset_trials(model, QUERY, store=Store(tmp_path)).to_dict("records")
    assert (row["recipe"], row["tried_rows"]) == ("rtn:group=32", 64)
    assert row["relative_error"] == trials["rtn:group=32"].relative_error


@pytest.mark.usefixtures("few")
def test_what_was_tried_is_not_tried_again_but_for_another_layer_or_calibration(
    model: ModelHandle, stats: CalibrationStats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preset_trials, "list_trial_recipes", lambda *, calibrated: FEW[:2] if calibrated else FEW[:1])
    store, quantized = Store(tmp_path), []
    run = preset_trials.quantize_layer
    monkeypatch.setattr(preset_trials, "quantize_layer", lambda *a, **k: quantized.append(a) or run(*a, **k))
    first = run_steps(try_presets_steps(model, QUERY, stats, store))
    assert run_steps(try_presets_steps(model, QUERY, stats, store)) == first
    assert len(quantized) == 2
    run_steps(try_presets_steps(model, QUERY, None, store))
    assert len(quantized) == 3, "without calibration"
    other = {QUERY: dataclasses.replace(stats[QUERY], moment=stats[QUERY].moment * 2)}
    run_steps(try_presets_steps(model, QUERY, other, store))
    assert len(quantized) == 5, "calibrated otherwise"
    neighbour = QUERY.replace("layers.0", "layers.1")
    run_steps(try_presets_steps(model, neighbour, {neighbour: stats[QUERY]}, store))
    assert len(quantized) == 7, "other weights under the same moment"


def test_some_rows_are_coded_with_the_codebook_of_all(
    model: ModelHandle, stats: CalibrationStats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preset_trials, "LEAST_ROWS", 16)
    monkeypatch.setattr(preset_trials, "WEIGHTS", 1)
    monkeypatch.setattr(preset_trials, "list_trial_recipes", lambda *, calibrated: ["gptvq:bits=3.0"])
    (trial,) = run_steps(try_presets_steps(model, QUERY, stats, Store(tmp_path))).values()
    recipe = presets.recipe("gptvq", bits=3.0)
    whole = wb.quantize(model, QUERY, recipe, stats)
    fitted = quantize(recipe, model.weight(QUERY)[list(spread_rows(64, 16))], stats[QUERY].moment)
    assert trial.rows == 16
    assert trial.bits_per_weight == pytest.approx(whole.bits_per_weight)
    assert fitted.relative_error < 0.5 * whole.relative_error, "a codebook of few rows promises too much"
    assert trial.relative_error == pytest.approx(whole.relative_error, rel=0.3)


@pytest.mark.parametrize(
    "spelled",
    # not arb-llm: how many columns are salient, which it stores twice, depends on the rows
    ["rtn:bits=2", "billm", "stbllm", "pb-llm", "btc", "btc-paper", "gptvq", "qtip", "parity", "ternary"],
)
def test_stored_bits_of_a_layer_follow_from_some_of_its_rows(spelled: str) -> None:
    weight = torch.randn(256, 128, generator=torch.Generator().manual_seed(0))
    recipe = presets.parse(spelled)
    whole = quantize(recipe, weight, correlated(128))
    some = quantize(recipe, weight[::4], correlated(128))
    assert count_layer_bits(some.packed, 256) == pytest.approx(whole.bits_per_weight, rel=0.02)
    if spelled in ("btc", "gptvq"):
        assert some.bits_per_weight > 1.2 * whole.bits_per_weight, "the codebook is paid for once"


def test_bits_of_two_factors_are_those_that_were_asked_for() -> None:
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    some = quantize(presets.recipe("littlebit", bits=1.0), weight, correlated(128))
    assert count_layer_bits(some.packed, 256) == some.bits_per_weight


@pytest.mark.parametrize(("rows", "count", "chosen"), [(8, 3, [1, 3, 5]), (4, 9, [0, 1, 2, 3]), (5, 1, [2])])
def test_rows_are_spread_evenly(rows: int, count: int, chosen: list[int]) -> None:
    assert list(spread_rows(rows, count)) == chosen


def test_the_table_leaves_out_what_does_not_fit() -> None:
    trials = {
        "gptq": Trial("gptq", 64, 4.2, 4.0, 0.02, 0.001),
        "rtn": Trial("rtn", 64, 4.2, 4.0, 0.01, 0.005),
        "rtn:bits=2": Trial("rtn:bits=2", 64, 2.2, 2.0, 0.1, 0.05),
        "btc": Trial("btc", 64, problem="too narrow"),
    }
    table = tabulate_trials(trials)
    assert table["recipe"].tolist() == ["rtn:bits=2", "rtn", "gptq"], "by family and bits"
    assert table["title"].tolist() == ["Round to nearest", "Round to nearest", "GPTQ"]
    assert table["output_error"].tolist() == [0.05, 0.005, 0.001]
    assert list(tabulate_trials({}).columns) == COLUMNS
