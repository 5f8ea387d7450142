"""Experts of mixtures are layers: read, run, swapped, calibrated and packed one by one, in every layout that families use."""

import fnmatch
import json
import warnings
from functools import partial
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import workbench as wb
from tests.zoo.checkpoints import write_checkpoint
from workbench.artifact import load, save
from workbench.calibration import calibrate
from workbench.kernels.forced_backend import VARIABLE
from workbench.models import ModelHandle, open_model
from workbench.store import Store

# one for each layout: merged from single tensors, transposed and interleaved, multiplied by bmm, a bare 3-D weight, flat
FAMILIES = ["mixtral", "gpt_oss", "llama4_text", "jetmoe", "dbrx", "deepseek_v3"]
IDS = torch.arange(3, 43)[None]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("mixtures")
    return {family: write_checkpoint(family, root / family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, folders: dict[str, Path]) -> ModelHandle:
    return open_model(folders[request.param])


def reference_logits(folder: Path) -> torch.Tensor:
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(IDS, use_cache=False).logits


def experts(model: ModelHandle) -> list[str]:
    return [name for name in model.layer_names if model.layer(name).expert is not None]


def test_a_mixture_computes_what_transformers_computes(model: ModelHandle) -> None:
    torch.testing.assert_close(model.language_model().logits(IDS), reference_logits(model.folder), rtol=1e-5, atol=1e-5)


def test_each_expert_is_the_map_that_its_layer_applies(model: ModelHandle) -> None:
    assert experts(model)
    for name in experts(model):
        weight, layer = model.weight(name), model.module.get_submodule(name)
        assert list(weight.shape) == [model.layer(name).rows, model.layer(name).cols]
        x = torch.randn(3, weight.shape[1], generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(layer(x), torch.nn.functional.linear(x, weight.float()))


def test_a_swapped_expert_changes_the_output_and_comes_back(model: ModelHandle) -> None:
    before = model.language_model().logits(IDS)
    block = [name for name in experts(model) if model.layer(name).block == model.layer(experts(model)[0]).block]
    zeros = {name: torch.zeros_like(model.weight(name)) for name in block}
    with model.swapped(zeros):
        assert not torch.allclose(model.language_model().logits(IDS), before)
    assert torch.equal(model.language_model().logits(IDS), before)


def test_experts_are_calibrated_with_the_tokens_they_are_routed(model: ModelHandle) -> None:
    stats = calibrate(model, wb.text("calibration"), tokens=64)
    tokens = [stats[name].tokens for name in experts(model) if name in stats]
    assert all(0 < count <= 64 for count in tokens)
    assert len(set(tokens)) > 1 or model.config.model_type == "llama4_text"  # there every expert gets every token, most as zeros


def test_packed_experts_run_and_are_saved(model: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # compiled products round their inputs, which can move a token to another expert
    monkeypatch.setenv(VARIABLE, "reference")
    result = wb.quantize_model(model, wb.recipe("rtn", bits=4))
    assert set(experts(model)) <= set(result.layers)
    with model.swapped({name: layer.weight() for name, layer in result.layers.items()}):
        expected = model.language_model().logits(IDS)
    loaded = load(save(result, tmp_path / "saved", model))
    torch.testing.assert_close(loaded.logits(IDS), expected, rtol=0, atol=1e-3 * float(expected.std()))


def test_an_expert_without_tokens_is_quantized_all_the_same(folders: dict[str, Path]) -> None:
    model = open_model(folders["mixtral"])
    with pytest.warns(UserWarning, match="layers were calibrated on too few tokens to benefit from it"):
        result = wb.quantize_model(model, wb.recipe("gptq", bits=3), text=wb.text("calibration"), tokens=1)
    unreached = result.calibration["unreached"]
    assert 0 < len(unreached) < len(result.layers)
    assert all(model.layer(name).expert is not None for name in unreached)
    stats = calibrate(model, wb.text("calibration"), tokens=1)
    assert set(stats) | set(stats.unreached) == set(model.layer_names)
    assert set(stats.unreached) <= set(experts(model))
    assert all(result.layers[name].output_error is None for name in unreached)
    with pytest.warns(UserWarning, match="layers were calibrated on too few tokens to benefit from it"):
        alone = wb.quantize_model(model, wb.recipe("gptq", bits=3), stats)
    assert alone.calibration["unreached"] == list(stats.unreached)
    more = stats + calibrate(model, wb.text("evaluation"), tokens=64)
    assert set(more.unreached) < set(stats.unreached)
    assert set(more) | set(more.unreached) == set(model.layer_names)


def test_experts_with_fewer_tokens_than_inputs_are_told(folders: dict[str, Path]) -> None:
    model = open_model(folders["mixtral"])
    stats = calibrate(model, wb.text("calibration"), tokens=40)
    assert stats.sparse
    for name, own in stats.items():
        cols = model.layer(name).cols
        assert (name in stats.sparse) == (own.tokens < min(cols, 40)), (name, own.tokens, cols)
    assert all(model.layer(name).expert is not None for name in stats.sparse)  # all others see every token
    result = wb.quantize_model(model, wb.recipe("gptq", bits=3), stats)
    least, tokens = min(stats.sparse.items(), key=lambda pair: pair[1])
    sentence = result.calibration_gaps()[-1]
    assert sentence.startswith(f"{len(stats.sparse)} of {len(result.layers)} layers saw fewer tokens than they have inputs")
    assert f"{least}, {tokens} for {model.layer(least).cols} inputs" in sentence
    in_sequence = wb.quantize_model(model, wb.recipe("gptq", bits=3), text=wb.text("calibration"), tokens=40)
    assert set(in_sequence.calibration["sparse"]) <= set(experts(model))
    assert any("fewer tokens" in gap for gap in in_sequence.calibration_gaps())
    plenty = wb.quantize_model(model, wb.recipe("gptq", bits=3), calibrate(model, wb.text("calibration"), tokens=2048))
    assert not plenty.calibration_gaps()


def test_a_resumed_run_names_the_same_experts_that_saw_nothing_or_too_little(folders: dict[str, Path], tmp_path: Path) -> None:
    model, store = open_model(folders["mixtral"]), Store(tmp_path)
    run = partial(wb.quantize_model, model, wb.recipe("gptq", bits=3), text=wb.text("calibration"), tokens=12, store=store)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few tokens
        first, again = run(), run()
    gaps = {name: first.calibration.get(name) for name in ("unreached", "sparse")}
    assert gaps["sparse"]
    assert {name: again.calibration.get(name) for name in gaps} == gaps


@pytest.mark.parametrize("layers", ["*", "*.experts.0.*", "*.q_proj"])
def test_each_weight_of_a_mixture_is_stored_once(model: ModelHandle, layers: str, tmp_path: Path) -> None:
    if not fnmatch.filter(model.layer_names, layers):
        layers = model.layer_names[0]
    result = wb.quantize_model(model, wb.recipe("rtn", bits=8, group=0), layers=layers)
    folder = save(result, tmp_path / "saved", model)
    ledger = json.loads((folder / "ledger.json").read_text())["model"]
    whole = sum(tensor.numel() for name, tensor in model.module.state_dict().items() if model.tied_tensor(name) is None)
    assert ledger["weights"] == whole
    with safe_open(folder / "packed.safetensors", "pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys() if "|" not in name]  # noqa: SIM118  not a dict
    assert sum(map(prod, shapes)) + sum(layer.packed.rows * layer.packed.cols for layer in result.layers.values()) == whole


def test_guided_moments_of_experts_need_statistics(folders: dict[str, Path]) -> None:
    """Weights of tokens belong to those that the original's router sends; quantized layers before it may send others."""
    model, recipe = open_model(folders["mixtral"]), wb.recipe("gptq", bits=2, group=32, guided=2)
    with pytest.raises(wb.errors.RecipeError, match=r"guided moments of the expert .* cannot be measured in sequence"):
        wb.quantize_model(model, recipe, text=wb.text("calibration"))
    stats = calibrate(model, wb.text("calibration"), tokens=200, guided=2)
    assert set(experts(model)) & set(stats.guided)
    assert set(wb.quantize_model(model, recipe, stats).layers) == set(model.layer_names)
