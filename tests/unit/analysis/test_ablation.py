"""The table of an ablation: honest columns, paired with its first row, and block errors that are what the blocks lose."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from workbench import presets
from workbench.analysis.glossary import COLUMNS
from workbench.analysis.predictions.ablation import measure_block_errors, run_ablation
from workbench.errors import RecipeError
from workbench.kernels.packing.packed import Packed
from workbench.models import ModelHandle, open_model
from workbench.models.text import Text, text
from workbench.quantizers import quantize_model

CALIBRATION = text("calibration")
EVALUATION = Text("short", tuple(story[:250] for story in text("evaluation").documents[:3]))


@pytest.fixture(scope="module")
def llama(tiny_models: dict[str, Path]) -> ModelHandle:
    return open_model(tiny_models["llama"])


def test_every_recipe_is_a_row_compared_with_the_first(llama: ModelHandle) -> None:
    seen: list[tuple[str, float]] = []
    recipes = {"kept": presets.recipe("none"), "same": presets.recipe("none"), "one bit": presets.recipe("btc", bits=1.0)}
    table = run_ablation(
        llama,
        recipes,
        EVALUATION,
        calibration=CALIBRATION,
        tokens=200,
        evaluation_tokens=300,
        on_progress=lambda name, fraction: seen.append((name, fraction)),
    )
    assert list(table["recipe"]) == list(recipes)
    assert set(table.columns) <= COLUMNS.keys()
    kept, same, one = (row for _, row in table.iterrows())
    assert kept.isna()["ratio"]
    assert (same["ratio"], same["ratio_low"], same["ratio_high"]) == (1, 1, 1)
    assert one["ratio"] == pytest.approx(one["perplexity"] / kept["perplexity"])
    assert one["ratio_low"] <= one["ratio"] <= one["ratio_high"]
    assert kept["block_error"] == 0 < one["block_error"] < 5
    assert one["bits_per_weight"] < 4 < kept["bits_per_weight"]
    with llama.swapped({}):
        whole = llama.perplexity(EVALUATION, tokens=300)
    assert kept["perplexity"] == pytest.approx(whole.perplexity, rel=1e-5)
    assert list(dict.fromkeys(name for name, fraction in seen if fraction == 1)) == list(recipes)


def test_a_block_that_adds_nothing_loses_all_it_adds(llama: ModelHandle) -> None:
    """A layer quantized to zeros at the end of each half of block 0: the block is left with its input."""
    result = quantize_model(llama, presets.recipe("none"), layers="model.layers.0.*")
    silent = {
        name: replace(layer, packed=Packed("zero", layer.packed.rows, layer.packed.cols))
        for name, layer in result.layers.items()
        if name.endswith(("o_proj", "down_proj"))
    }
    errors = measure_block_errors(llama, replace(result, layers={**result.layers, **silent}), EVALUATION, tokens=100)
    np.testing.assert_allclose(errors, [1.0] + [0.0] * (len(errors) - 1), atol=1e-6)


def test_no_recipe_is_an_error(llama: ModelHandle) -> None:
    with pytest.raises(RecipeError, match="no recipes to compare; give at least one"):
        run_ablation(llama, {}, EVALUATION, calibration=CALIBRATION)


def test_a_later_block_gets_its_own_input(llama: ModelHandle) -> None:
    """With only block 1 quantized, its output in the whole model is its output on full-precision input."""
    result = quantize_model(llama, presets.recipe("rtn", bits=2), layers="model.layers.1.*")
    words = Text("one", ("Tom had a red ball. He ran after it.",))
    ids = llama.encode(words.documents[0])
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = llama.module.get_submodule("model.layers.1").register_forward_hook(
        lambda _module, args, out: seen.append((args[0], out if isinstance(out, torch.Tensor) else out[0]))
    )
    with hook, torch.no_grad():
        llama.module(ids)
        with llama.swapped({name: layer.weight() for name, layer in result.layers.items()}):
            llama.module(ids)
    (hidden, full), (_, out) = seen
    expected = ((out - full).square().sum() / (full - hidden).square().sum()).item()
    assert expected > 0.001
    assert measure_block_errors(llama, result, words, tokens=ids.shape[1]) == pytest.approx([0, expected], rel=1e-4)
