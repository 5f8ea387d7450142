"""The whole model as the target: gradients, lower divergence at the same bits, resumption, and what stays as it is."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from tests.same_layers import assert_same_layers
from workbench import presets
from workbench.errors import RecipeError
from workbench.jobs import run_steps
from workbench.models import ModelHandle, open_model
from workbench.models.blocks import BlockRow
from workbench.models.text import text
from workbench.presets.preset import make_part
from workbench.quantized import QuantizedModel
from workbench.quantizers import LayerProgress, quantize_model, quantize_model_steps
from workbench.quantizers.runs import model_refinement
from workbench.recipe import LayerPlan, Recipe
from workbench.store import Store

TEXT = text("calibration")
IDS = torch.arange(24)[None]


@pytest.fixture(scope="module")
def llama(tiny_models: dict[str, Path]) -> ModelHandle:
    return open_model(tiny_models["llama"])


def recipe(name: str = "btc", what: str = "codes", written: int = 400, model_steps: int = 40, **settings: float) -> Recipe:
    part = make_part("refinement", "model", what=what, steps=0, model_steps=model_steps, model_tokens=64, written=written)
    return presets.recipe(name, **settings).replace(refinement=part)


def run(model: ModelHandle, plan: Recipe | LayerPlan, store: Store | None = None) -> QuantizedModel:
    return quantize_model(model, plan, text=TEXT, tokens=200, store=store)


def divergence(model: ModelHandle, quantized: QuantizedModel) -> float:
    """KL from the original's predictions to the quantized model's, on the text that it was trained on."""
    ids = model.encode(TEXT.documents[0])[:, :100]
    expected = model.run(ids).logits.log_softmax(-1)
    weights = {name: layer.weight() for name, layer in quantized.layers.items()}
    with model.swapped({**weights, **quantized.changed_tensors}):
        found = model.run(ids).logits.log_softmax(-1)
    return F.kl_div(found, expected, reduction="batchmean", log_target=True).item()


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_pass_on_given_weights_is_the_model_and_gradients_do_not_depend_on_recomputing(
    tiny_models: dict[str, Path], family: str
) -> None:
    model = open_model(tiny_models[family])
    row = BlockRow(model)
    weights = [row.read_weights(index) for index in range(len(row.names))]
    assert torch.equal(row.compute_logits(IDS, weights.__getitem__, {}), model.run(IDS).logits[0])
    gradients = []
    for recompute in (False, True):
        leaves = [{name: weight.clone().requires_grad_() for name, weight in block.items()} for block in weights]
        row.compute_logits(IDS, leaves.__getitem__, {}, recompute=recompute).square().sum().backward()
        gradients.append([leaf.grad for block in leaves for leaf in block.values()])
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients[0])
    assert all(torch.allclose(a, b) for a, b in zip(*gradients, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("what", ["scales", "norms", "codes"])
@pytest.mark.parametrize(("name", "settings"), [("btc", {"bits": 0.8}), ("rtn", {"bits": 2}), ("qtip", {"bits": 1})])
def test_the_model_predicts_more_like_the_original_at_the_same_bits(
    llama: ModelHandle, name: str, settings: dict[str, float], what: str
) -> None:
    plain = run(llama, recipe(name, what, model_steps=0, **settings))
    trained = run(llama, recipe(name, what, **settings))
    assert divergence(llama, trained) < divergence(llama, plain)
    for layer in plain.layers:
        assert trained.layers[layer].ledger == plain.layers[layer].ledger
        assert trained.layers[layer].output_error is not None
    moved = [key for layer in plain.layers for key in _changed_codes(plain, trained, layer)]
    assert bool(moved) == (what == "codes")
    assert bool(trained.changed_tensors) == (what != "scales")
    assert all(
        tensor.dtype == llama.tensor(key).dtype and not torch.equal(tensor, llama.tensor(key))
        for key, tensor in trained.changed_tensors.items()
    )


def _changed_codes(one: QuantizedModel, other: QuantizedModel, layer: str) -> list[str]:
    """The integer tensors of a layer that differ."""
    nodes = zip(one.layers[layer].packed.walk(), other.layers[layer].packed.walk(), strict=True)
    pairs = [(name, tensor, b.tensors[name]) for (_, a), (_, b) in nodes for name, tensor in a.tensors.items()]
    return [name for name, a, b in pairs if not a.is_floating_point() and not torch.equal(a, b)]


def test_only_the_layers_that_ask_for_it_are_trained(llama: ModelHandle) -> None:
    plain = presets.recipe("rtn", bits=2)
    plan = LayerPlan((("*.0.*", recipe("rtn", bits=2)), ("*.mlp.*", plain)))
    trained, alone = run(llama, plan), run(llama, LayerPlan((("*", plain),)))
    for name, layer in trained.layers.items():
        same = torch.equal(layer.weight(), alone.layers[name].weight())
        assert same == (".0." not in name)


def test_a_run_that_was_stopped_goes_on_from_its_training_to_the_same_result(
    llama: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_refinement, "KEEPING_SECONDS", 0.0)
    store, plan = Store(tmp_path), recipe(bits=0.8)
    steps = quantize_model_steps(llama, plan, text=TEXT, tokens=200, store=store)
    for step in steps:
        if step.snapshot is not None and step.snapshot.event == "refine" and step.snapshot.done >= 25:
            steps.close()
            break
    seen: list[int] = []
    resumed = quantize_model_steps(llama, plan, text=TEXT, tokens=200, store=store)

    def note_training(step: LayerProgress) -> None:
        if step.snapshot is not None and step.snapshot.event == "refine":
            seen.append(step.snapshot.done)

    result = run_steps(resumed, note_training)
    assert seen[0] == 21
    assert_same_layers(result, run(llama, plan))


def test_one_model_is_trained_in_one_way(llama: ModelHandle) -> None:
    plan = LayerPlan((("*.0.*", recipe("rtn", bits=2)), ("*", recipe("rtn", bits=2, written=0))))
    with pytest.raises(RecipeError, match=r"trains the whole model in 2 ways.*give all layers one"):
        run(llama, plan)


def test_predictions_that_are_too_many_to_keep_are_computed_anew(llama: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = run(llama, recipe("rtn", what="scales", bits=2, written=0))
    monkeypatch.setattr(model_refinement, "TEACHER_BYTES", 0)
    anew = run(llama, recipe("rtn", what="scales", bits=2, written=0))
    for name, layer in kept.layers.items():  # kept predictions are rounded to half precision
        assert torch.allclose(layer.weight(), anew.layers[name].weight(), atol=2e-2)


def test_a_preset_trains_the_whole_model_by_one_word() -> None:
    part = presets.parse("btc:bits=0.8,refinement=model").refinement
    assert part == make_part("refinement", "model")
    assert presets.parse("qtip:bits=2,refinement=model").refinement == make_part("refinement", "model", every=4)
