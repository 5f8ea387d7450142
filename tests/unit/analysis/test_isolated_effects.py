"""A quantized model taken apart: each layer alone or restored, with what its recipe changed beside it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import workbench as wb
from workbench.analysis.decisions.error_budget import error_budget
from workbench.analysis.predictions.fork import ForkFinder
from workbench.analysis.predictions.isolated_effects import Scaled, build_replacements, match_basis
from workbench.analysis.predictions.suffix_replay import Replay
from workbench.artifact.quantized_copy import build_packed_copy
from workbench.errors import ModelError
from workbench.kernels import forced_backend
from workbench.models import ModelHandle, open_model
from workbench.models.boundaries import Boundaries
from workbench.models.text import Text
from workbench.presets.preset import make_part
from workbench.quantized import QuantizedModel
from workbench.quantizers import fold

STORY = "One day a small dog saw a red ball in the garden."
NORM = "model.layers.1.post_attention_layernorm.weight"
RTN = wb.recipe("rtn", bits=3, group=32)


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled kernels round sums otherwise than a product of matrices does."""
    monkeypatch.setenv(forced_backend.VARIABLE, "reference")


@pytest.fixture(scope="module")
def model(tiny_models: dict[str, Path]) -> ModelHandle:
    return open_model(tiny_models["llama"])


@pytest.fixture(scope="module")
def learned(model: ModelHandle) -> QuantizedModel:
    """Learned diagonals and rotations, online."""
    recipe = RTN.replace(transform=make_part("transform", "learned", steps=2, tokens=64, draws=2))
    return wb.quantize_model(model, recipe, text=wb.text("calibration"), tokens=128)


@pytest.fixture(scope="module")
def folded(model: ModelHandle, learned: QuantizedModel) -> QuantizedModel:
    return fold(model, learned)


def other_vectors(model: ModelHandle) -> dict[str, Tensor]:
    """Every gain and bias of the first block, changed at random."""
    draw = torch.Generator().manual_seed(0)
    own = {name: own for name, own in model.other_tensors(model.layer_names).items() if own.ndim == 1 and ".0." in name}
    return {name: vector * (1 + 0.3 * torch.randn(vector.shape, generator=draw)) + 0.01 for name, vector in own.items()}


def same(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


def check_replay(model: ModelHandle, quantized: QuantizedModel, tolerance: float = 1e-5) -> None:
    """All changes at once are the quantized model, and with any one of them taken back replay is the whole forward pass."""
    ids, lm, changes = model.encode(STORY), model.language_model(), build_replacements(model, quantized)
    whole = build_packed_copy(model, quantized.layers, quantized.changed_tensors).logits(ids)
    same(Boundaries(model, [ids]).logits(0, changes), whole, tolerance)
    base = Boundaries(model, [ids], changes)
    same(base.logits(0), whole, tolerance)
    for name in changes:
        with model.swapped({other: change for other, change in changes.items() if other != name}):
            same(base.logits(0, {name: None}), lm.logits(ids), tolerance)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma", "gpt2", "opt"])
def test_gains_and_biases_of_every_family(tiny_models: dict[str, Path], family: str) -> None:
    model = open_model(tiny_models[family])
    quantized = replace(wb.quantize_model(model, RTN), changed_tensors=other_vectors(model))
    assert quantized.changed_tensors
    check_replay(model, quantized)


def test_layers_that_round_their_inputs(model: ModelHandle) -> None:
    recipe = RTN.replace(activations=make_part("activations", "per-token", bits=8))
    quantized = replace(wb.quantize_model(model, recipe), changed_tensors=other_vectors(model))
    check_replay(model, quantized, 1e-2)  # sums in another order tip an input to the next of 255 steps
    assert isinstance(build_replacements(model, quantized)["model.layers.0.mlp.up_proj"], Scaled)


def test_folded_layers_do_alone_what_they_did_before(model: ModelHandle, learned: QuantizedModel, folded: QuantizedModel) -> None:
    """Signs and gains that went into the norms belong to the layers behind them, one by one."""
    assert NORM in folded.changed_tensors
    check_replay(model, folded)
    ids = model.encode(STORY)
    before, after = build_replacements(model, learned), build_replacements(model, folded)
    assert before.keys() == after.keys()
    for name in before:
        expected = Boundaries(model, [ids]).logits(0, {name: before[name]})
        same(Boundaries(model, [ids]).logits(0, {name: after[name]}), expected)
        same(Boundaries(model, [ids], after).logits(0, {name: None}), Boundaries(model, [ids], before).logits(0, {name: None}))


def test_fork_and_budget_of_a_folded_model(model: ModelHandle, learned: QuantizedModel, folded: QuantizedModel) -> None:
    first, second = (ForkFinder(model, made, STORY, tokens=12) for made in (learned, folded))
    assert first.fork == second.fork
    assert first.table["kl"].to_numpy() == pytest.approx(second.table["kl"].to_numpy(), rel=1e-3, abs=1e-7)
    replay = Replay(model, Text("story", (STORY,)))
    first, second = (error_budget(replay, made, top=2) for made in (learned, folded))
    assert first.joint.kl == pytest.approx(second.joint.kl, rel=1e-3)
    assert first.layers["kl"].to_numpy() == pytest.approx(second.layers["kl"].to_numpy(), rel=1e-3)


def test_what_belongs_to_no_layer_is_a_row_of_its_own(tiny_models: dict[str, Path]) -> None:
    model = open_model(tiny_models["gpt2"])
    name = "transformer.h.0.ln_1.weight"
    quantized = replace(wb.quantize_model(model, RTN), changed_tensors={name: 2 * model.tensor(name)})
    budget = error_budget(Replay(model, Text("story", (STORY,))), quantized, top=2)
    row = budget.layers.set_index("name").loc[name]
    assert (row["block"], row["matrix"]) == (0, "ln_1 weight")
    assert row["kl"] > 0
    assert len(budget.layers) == len(quantized.layers) + 1


def test_a_fused_models_layers_need_the_fused_model(model: ModelHandle) -> None:
    fused = wb.fuse(model, seed=3)
    quantized = wb.quantize_model(fused, RTN)
    with pytest.raises(ModelError, match=r"use wb.fuse\(model, seed=3, residual=True\)"):
        build_replacements(model, quantized)
    assert match_basis(fused, quantized) is fused
    check_replay(match_basis(model, quantized), replace(quantized, changed_tensors={}))
    assert build_replacements(fused, quantized).keys() == quantized.layers.keys()
    finder = ForkFinder(model, quantized, STORY, tokens=12)
    expected = build_packed_copy(model, quantized.layers, quantized.changed_tensors).logits(finder.ids)
    same(finder.changed.logits(0), expected)
