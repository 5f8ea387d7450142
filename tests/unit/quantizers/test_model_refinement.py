"""The whole model as the target: gradients, lower divergence at the same bits, resumption, and what stays as it is."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from tests.same_layers import assert_same_layers
from workbench import presets
from workbench.analysis.decisions.quant_card_file import parse_facts
from workbench.artifact import load, save
from workbench.errors import ArtifactError, RecipeError
from workbench.jobs import run_steps
from workbench.models import ModelHandle, open_model
from workbench.models.blocks import BlockRow
from workbench.models.text import text
from workbench.presets.preset import make_part
from workbench.quantized import MODEL_REFINEMENT, QuantizedModel
from workbench.quantizers import LayerProgress, quantize_model, quantize_model_steps, refine_model
from workbench.quantizers.refinements import Model
from workbench.quantizers.runs import model_refinement
from workbench.quantizers.runs.progress import TrainingState
from workbench.recipe import LayerPlan, Recipe
from workbench.store import Store
from workbench.views.decisions.quant_card import card

TEXT = text("calibration")
IDS = torch.arange(24)[None]


@pytest.fixture(scope="module")
def llama(tiny_models: dict[str, Path]) -> ModelHandle:
    return open_model(tiny_models["llama"])


def recipe(name: str, what: str = "codes", written: int = 400, model_steps: int = 30, **settings: float) -> Recipe:
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
def test_the_model_predicts_more_like_the_original_at_the_same_bits(llama: ModelHandle, what: str) -> None:
    plain, trained = run(llama, recipe("rtn", what, model_steps=0, bits=2)), run(llama, recipe("rtn", what, bits=2))
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


@pytest.mark.complete
@pytest.mark.parametrize(("name", "bits"), [("btc", 0.8), ("qtip", 1.0), ("parity", 0.8)])
def test_codes_of_any_format_are_trained(name: str, bits: float) -> None:
    model = open_model("builtin")
    part = make_part("refinement", "model", steps=0, model_steps=16, written=0, every=4)
    chosen = presets.recipe(name, bits=bits).replace(refinement=part)
    steps = quantize_model_steps(model, chosen, layers="*.0.self_attn.*", text=TEXT, tokens=2048)
    quantized = run_steps(steps)
    facts = quantized.calibration[MODEL_REFINEMENT]
    assert facts["divergence"] < 0.99 * facts["divergence_before"]


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


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_run_that_has_ended_early_goes_on_from_its_training_to_the_same_result(
    llama: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(model_refinement, "KEEPING_SECONDS", 0.0 if end == "killed" else 1e9)
    store, plan = Store(tmp_path), recipe("rtn", model_steps=30, bits=2)
    steps = quantize_model_steps(llama, plan, text=TEXT, tokens=200, store=store)
    next(step for step in steps if _find_step(step) == 25)
    if end == "stopped":
        steps.close()
    seen: list[int | None] = []
    result = run_steps(
        quantize_model_steps(llama, plan, text=TEXT, tokens=200, store=store), lambda step: seen.append(_find_step(step))
    )
    assert [step for step in seen if step is not None] == list(range(21, 31))
    assert_same_layers(result, run(llama, plan))
    assert "training" not in [item.kind for item in store.items()]


def _find_step(progress: LayerProgress) -> int | None:
    """The step of the whole model's training that a run is at."""
    return progress.stage.step if isinstance(progress.stage, TrainingState) else None


def test_progress_never_goes_back_and_says_the_loss(llama: ModelHandle) -> None:
    seen: list[LayerProgress] = []
    run_steps(quantize_model_steps(llama, recipe("rtn", bits=2, model_steps=20), text=TEXT, tokens=200), seen.append)
    fractions = [step.fraction for step in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    words = [str(step.stage) for step in seen if step.stage is not None]
    assert words[0].startswith("writing text to train on: ")
    losses = r"divergence \d\S+ nats per token \(\d\S+ on held-out text\)"
    assert re.fullmatch(f"training the whole model: step 20 of 20, {losses}, about 0 s left", words[-1])


def test_cost_and_gain_are_saved_and_on_the_card(llama: ModelHandle, tmp_path: Path) -> None:
    trained = run(llama, recipe("rtn", bits=2, model_steps=20))
    facts = trained.calibration[MODEL_REFINEMENT]
    assert facts["divergence"] < facts["divergence_before"]
    assert (facts["trains"], facts["steps"], facts["step_tokens"]) == ("codes", 20, 64)
    assert facts["tokens"] > facts["written_tokens"] > 0 < facts["seconds"]
    saved = load(save(trained, tmp_path / "saved", llama))
    assert saved.quantized.calibration[MODEL_REFINEMENT] == facts
    made = card(saved, llama, measured=False)
    assert made.facts["times"]["refining"] == facts["seconds"]
    assert "seconds" not in made.facts["recipe"]["calibration"][MODEL_REFINEMENT]
    assert f"20 steps of about 64 tokens on {facts['tokens']:,} tokens" in made.html()
    assert made.facts == parse_facts(made.json().encode(), "the card")
    damaged = json.loads(made.json())
    del damaged["recipe"]["calibration"][MODEL_REFINEMENT]["steps"]
    with pytest.raises(ArtifactError, match="steps"):
        parse_facts(json.dumps(damaged).encode(), "the card")


def test_a_saved_model_is_trained_as_one_that_is_just_made(llama: ModelHandle, tmp_path: Path) -> None:
    plain = quantize_model(llama, presets.recipe("rtn", bits=2), text=TEXT, tokens=200)
    saved, part = load(save(plain, tmp_path / "saved", llama)), recipe("rtn", model_steps=20, bits=2).refinement
    assert isinstance(part, Model)
    refined = refine_model(saved, llama, TEXT, refinement=part, tokens=200)
    assert divergence(llama, refined) < divergence(llama, plain)
    assert refined.plan == plain.plan
    assert refined.ledger == plain.ledger
    together = run(llama, recipe("rtn", model_steps=20, bits=2))
    for name, layer in together.layers.items():
        assert torch.equal(layer.weight(), refined.layers[name].weight())


def test_a_saved_model_needs_its_original_and_a_refinement_of_the_whole(tiny_models: dict[str, Path], llama: ModelHandle) -> None:
    plain = quantize_model(llama, presets.recipe("rtn", bits=2), layers="*.0.mlp.*")
    with pytest.raises(ArtifactError, match="not from"):
        refine_model(plain, open_model(tiny_models["qwen2"]), TEXT)
    with pytest.raises(RecipeError, match="does not train the whole model"):
        refine_model(plain, llama, TEXT, refinement=make_part("refinement", "block"))


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
    shorter = presets.parse("gptq:bits=2,refinement=model-norms,model_steps=20").refinement
    assert shorter == make_part("refinement", "model", what="norms", model_steps=20)
