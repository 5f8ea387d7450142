"""The main job on real models: quantize, save, load, measure, compare, with the orderings that published methods promise."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import workbench as wb
from workbench.calibration import CalibrationStats
from workbench.models import ModelHandle
from workbench.models.text import Text
from workbench.recipe import Recipe

TOKENS = 4000
FIELDS = {"name", "bits_per_weight", "relative_error", "output_error"}


def workbench(*arguments: object) -> dict[str, Any]:
    """Run the command line in a process of its own and read the one JSON document it prints."""
    code = "from workbench.cli import main; main()"
    words = [sys.executable, "-c", code, *map(str, arguments), "--json"]
    return json.loads(subprocess.run(words, text=True, capture_output=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["btc:bits=0.8", "rtn:bits=4,group=64"], ids=["btc-0.8", "rtn-4"])
def test_quantize_eval_compare(tmp_path: Path, recipe: str) -> None:
    out = tmp_path / "out"
    quantized = workbench("quantize", "builtin", "--recipe", recipe, "--out", out)
    assert {"recipe", "bits_per_weight", "nominal_bits", "bytes", "tokens", "seconds", "layers"} <= set(quantized)
    assert set(quantized["layers"][0]) >= FIELDS
    size = (out / "model.safetensors").stat().st_size
    ledger = json.loads((out / "ledger.json").read_text())
    assert quantized["bytes"] == size
    assert ledger["bytes"] == size
    assert sum(entry["bits"] for entry in ledger["model"]["entries"]) == 8 * size
    weights = sum(layer["rows"] * layer["cols"] for layer in quantized["layers"])
    stored = sum(layer["bits_per_weight"] * layer["rows"] * layer["cols"] for layer in quantized["layers"])
    assert quantized["bits_per_weight"] == pytest.approx(stored / weights, rel=1e-9)
    assert quantized["bits_per_weight"] > quantized["nominal_bits"]

    measured, original = workbench("eval", out), workbench("eval", "builtin")
    assert measured["bytes"] == size
    assert measured["bits_per_weight"] == pytest.approx(quantized["bits_per_weight"])
    assert measured["perplexity_interval"][0] < measured["perplexity"] < measured["perplexity_interval"][1]
    assert measured["perplexity"] > original["perplexity"]

    compared = workbench("compare", "builtin", out)
    row = compared["models"][0]
    assert compared["tokens"] == measured["tokens"]
    assert compared["original"]["perplexity"] == pytest.approx(original["perplexity"], rel=1e-6)
    assert row["perplexity"] == pytest.approx(measured["perplexity"], rel=1e-6)
    assert row["kl_interval"][0] < row["kl"] < row["kl_interval"][1]
    assert 0 < row["top1_agreement"] < 1
    assert row["bytes"] == size < compared["original"]["bytes"]
    assert row["generated"]


@pytest.mark.slow
def test_saved_model_runs_as_the_dequantized_one(builtin: ModelHandle, tmp_path: Path) -> None:
    quantized = wb.quantize_model(builtin, wb.recipe("rtn", bits=3, group=64))
    packed = wb.load(wb.save(quantized, tmp_path / "out", builtin))
    ids = builtin.encode("Once upon a time there was a little dog who lived in a small house.")
    with builtin.swapped({name: layer.weight() for name, layer in quantized.layers.items()}):
        expected = builtin.language_model().logits(ids)
    torch.testing.assert_close(packed.logits(ids), expected, rtol=1e-4, atol=1e-4)
    assert packed.generate("Once upon a time", tokens=20).startswith("Once upon a time")


@pytest.fixture(scope="module", params=[pytest.param("builtin"), pytest.param("stories260k", marks=pytest.mark.shared)])
def model(request: pytest.FixtureRequest) -> ModelHandle:
    """The built-in model, and the small real Llama of the data folder."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def stats(model: ModelHandle) -> CalibrationStats:
    """Calibration on the built-in text."""
    return wb.calibrate(model, wb.text("calibration"), tokens=8192)


@pytest.fixture(scope="module")
def evaluation() -> Text:
    return wb.text("evaluation")


@pytest.fixture(scope="module")
def perplexity(model: ModelHandle, stats: CalibrationStats, evaluation: Text) -> Callable[[Recipe | None], float]:
    """Perplexity of the model with every layer quantized by a recipe; None is the original."""

    def measure(recipe: Recipe | None) -> float:
        layers = {} if recipe is None else wb.quantize_model(model, recipe, stats=stats).layers
        with model.swapped({name: layer.weight() for name, layer in layers.items()}):
            return model.perplexity(evaluation, tokens=TOKENS).perplexity

    return measure


@pytest.mark.slow
def test_eight_bits_are_nearly_free(perplexity: Callable[[Recipe | None], float]) -> None:
    original = perplexity(None)
    assert perplexity(wb.recipe("rtn", bits=8, group=64)) == pytest.approx(original, rel=0.005)


@pytest.mark.slow
def test_none_is_exactly_free(perplexity: Callable[[Recipe | None], float]) -> None:
    assert perplexity(wb.recipe("none")) == perplexity(None)


@pytest.mark.slow
@pytest.mark.parametrize("bits", [2, 3])
def test_gptq_is_below_rtn(perplexity: Callable[[Recipe | None], float], bits: int) -> None:
    nearest, feedback = (perplexity(wb.recipe(name, bits=bits, group=64)) for name in ("rtn", "gptq"))
    assert perplexity(None) < feedback < nearest


@pytest.mark.slow
def test_magnitude_aware_codebook_is_below_hamming(perplexity: Callable[[Recipe | None], float]) -> None:
    magnitude, hamming = (wb.recipe("btc", bits=0.8, assignment=assignment) for assignment in ("magnitude", "hamming"))
    assert perplexity(magnitude) < perplexity(hamming)
