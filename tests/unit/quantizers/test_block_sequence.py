"""Blocks in sequence: the same result after a kill, transforms paid for once, exactness where nothing is quantized."""

import itertools
import json
from pathlib import Path
from typing import cast

import pytest
import torch

from tests.same_layers import assert_same_layers
from workbench import presets
from workbench.artifact import save
from workbench.errors import RecipeError
from workbench.jobs import run_steps
from workbench.kernels.packing.bitpack import pack
from workbench.models import ModelHandle, open_model
from workbench.models.text import text
from workbench.presets.preset import make_part
from workbench.quantized import QuantizedModel
from workbench.quantizers import LayerProgress, quantize_model, quantize_model_steps
from workbench.quantizers.contract import Coder
from workbench.quantizers.runs.block_sequence import BlockSequence
from workbench.quantizers.runs.quantize_model import choose_layers
from workbench.quantizers.transforms.learned import INPUTS, Learned
from workbench.recipe import LayerPlan, Recipe
from workbench.store import Store

TEXT = text("calibration")


@pytest.fixture(scope="module")
def llama(tiny_models: dict[str, Path]) -> ModelHandle:
    return open_model(tiny_models["llama"])


def recipe(steps: int = 4, inputs: str = "quantized") -> Recipe:
    """A learned transform, a codebook of the model and compensation: everything that a run has to keep."""
    btc = presets.recipe("btc", bits=0.8, scope="model", sweeps=3)
    return btc.replace(transform=make_part("transform", "learned", steps=steps, tokens=64, inputs=inputs, draws=2))


def run(
    model: ModelHandle, store: Store | None = None, seen: list[LayerProgress] | None = None, inputs: str = "quantized"
) -> QuantizedModel:
    told = None if seen is None else seen.append
    return quantize_model(model, recipe(inputs=inputs), text=TEXT, tokens=200, store=store, on_progress=told)


@pytest.fixture(scope="module")
def finished(llama: ModelHandle) -> dict[str, tuple[QuantizedModel, list[LayerProgress]]]:
    """An undisturbed run and its progress by what blocks learn on, for all tests that only read it."""
    runs = {}
    for inputs in INPUTS:
        steps: list[LayerProgress] = []
        runs[inputs] = run(llama, seen=steps, inputs=inputs), steps
    return runs


@pytest.mark.parametrize("inputs", INPUTS)
def test_a_killed_run_goes_on_to_the_same_result(llama: ModelHandle, finished: dict, tmp_path: Path, inputs: str) -> None:
    whole, _ = finished[inputs]
    store = Store(tmp_path)
    killed = quantize_model_steps(llama, recipe(inputs=inputs), text=TEXT, tokens=200, store=store)
    done = (step for step in killed if step.event == "done")
    stored = [step.layer for step in itertools.islice(done, 3)]
    killed.close()
    seen: list[LayerProgress] = []
    assert_same_layers(run(llama, store, seen, inputs), whole)
    assert {step.layer for step in seen if step.event == "layer"} == set(llama.layer_names) - set(stored)
    # the first block's bases were found before the kill, and all of them where learning comes first
    learned = {step.layer for step in seen if step.event == "learn"}
    assert learned == ({"model.layers.1"} if inputs == "quantized" else set())
    # another text is another run
    other = quantize_model_steps(llama, recipe(inputs=inputs), text=TEXT, tokens=100, store=store)
    assert next(step for step in other if step.event != "share").event == "learn"
    other.close()


@pytest.mark.parametrize("inputs", INPUTS)
def test_progress_rises_through_all_passes_to_one(finished: dict, inputs: str) -> None:
    _, seen = finished[inputs]
    fractions = [step.fraction for step in seen]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert {step.event for step in seen} == {"learn", "share", "layer", "done"}
    losses = [s.snapshot.detail["step"].loss for s in seen if s.event == "learn" and s.snapshot is not None]
    assert all(0 < loss < 10 for loss in losses)


def test_a_transform_is_paid_for_once(llama: ModelHandle, finished: dict, tmp_path: Path) -> None:
    result, _ = finished["quantized"]
    q, k = (result.layers[f"model.layers.0.self_attn.{name}_proj"].packed for name in "qk")
    assert q.shared == k.shared
    assert {layers for _, layers in q.shared.values()} == {3}
    assert all(torch.equal(q.tensors[name], k.tensors[name]) for name in q.tensors)
    ledger = json.loads((save(result, tmp_path / "out", llama) / "ledger.json").read_text())
    assert (
        sum(entry["bits"] for entry in ledger["model"]["entries"]) == 8 * (tmp_path / "out" / "packed.safetensors").stat().st_size
    )


def test_bases_are_learned_for_the_codebook_that_is_used_and_on_the_inputs_of_their_block(
    llama: ModelHandle, finished: dict
) -> None:
    """The codebook is that of the bases in which learning begins; block 0 has the original's inputs, later ones do not."""
    quantized, teacher = (finished[inputs][0] for inputs in INPUTS)
    transform, (coder,) = cast(Learned, recipe().transform), recipe().coders
    weights = [llama.weight(name).float() for name in llama.layer_names]
    begun = [transform.forward(w, transform.beginning(w.shape[1], recipe().seed)) for w in weights]
    expected = pack(cast(Coder, coder).prepare(begun).codebook > 0, 1)
    for result in (quantized, teacher):
        for layer in result.layers.values():
            assert torch.equal(layer.packed.children[0].tensors["codebook"], expected)

    def same(block: int) -> bool:
        pairs = [(quantized.layers[name].packed.tensors, teacher.layers[name].packed.tensors) for name in llama.layer_names]
        own = [pair for name, pair in zip(llama.layer_names, pairs, strict=True) if f".{block}." in name]
        return all(a.keys() == b.keys() and all(torch.equal(a[t], b[t]) for t in a) for a, b in own)

    assert same(0)
    assert not same(1)


def test_none_changes_nothing(llama: ModelHandle) -> None:
    result = quantize_model(llama, presets.recipe("none"), text=TEXT, tokens=100)
    assert [layer.relative_error for layer in result.layers.values()] == [0.0] * len(llama.layer_names)


@pytest.mark.parametrize("family", ["gpt2", "opt", "gemma3", "bert"])
def test_other_families_run_in_sequence(tiny_models: dict[str, Path], family: str) -> None:
    model = open_model(tiny_models[family])
    plan = LayerPlan((("*0*", recipe(steps=2)), ("*", presets.recipe("gptq", bits=4, group=64, act_order=True))))
    result = quantize_model(model, plan, text=TEXT, tokens=60)
    assert list(result.layers) == model.layer_names
    assert result.calibration["tokens"] == 60
    assert all(layer.output_error is not None and layer.output_error < 1 for layer in result.layers.values())


def test_text_and_statistics_exclude_each_other(llama: ModelHandle, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="stats= and text= exclude each other: a sequential run measures its own statistics"):
        quantize_model(llama, recipe(), {}, text=TEXT)
    with pytest.raises(RecipeError, match="store= caches the layers of a sequential run; give text= too, or omit store="):
        quantize_model(llama, presets.recipe("rtn"), store=Store(tmp_path))


@pytest.mark.slow
def test_repairing_what_was_lost_beats_every_layer_by_itself(builtin: ModelHandle) -> None:
    from workbench.calibration import calibrate

    btc = presets.recipe("btc", bits=0.8)
    alone = quantize_model(builtin, btc, calibrate(builtin, TEXT, tokens=2048))
    in_sequence = quantize_model(builtin, btc, text=TEXT, tokens=2048)
    assert in_sequence.bits_per_weight == alone.bits_per_weight

    def perplexity(result: QuantizedModel) -> float:
        with builtin.swapped({name: layer.weight() for name, layer in result.layers.items()}):
            return builtin.perplexity(text("evaluation"), tokens=2000).perplexity

    assert perplexity(in_sequence) < 0.6 * perplexity(alone)


@pytest.mark.parametrize(("name", "compares"), [("gptq:bits=3,group=32", False), ("gptq:bits=3,group=32,repair=yes", True)])
def test_the_original_model_runs_beside_only_where_a_layer_aims_at_it(llama: ModelHandle, name: str, compares: bool) -> None:
    plan = LayerPlan.uniform(presets.parse(name))
    chosen = choose_layers(llama, plan, "*", None, measured=True)
    results = []
    for is_forced in (False, True):
        sequence = BlockSequence(llama, plan, chosen, TEXT, tokens=200, seed=0, store=None)
        assert (sequence.compares, sequence.repairs) == (compares, compares)
        sequence.compares |= is_forced
        results.append(run_steps(sequence.steps()))
    for layer, result in results[0].items():
        assert torch.equal(result.weight(), results[1][layer].weight()), layer
