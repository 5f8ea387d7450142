"""Routers of mixtures of experts as layers that are quantized where they are named, run by the code of their own class."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

import workbench as wb
from tests.zoo.checkpoints import write_checkpoint
from workbench.artifact.quantized_copy import build_packed_copy
from workbench.errors import RecipeError
from workbench.kernels.forced_backend import VARIABLE
from workbench.kernels.matmul.packed_module import PackedModule
from workbench.models import ModelHandle, open_model

FAMILIES = {"mixtral": "gate", "gpt_oss": "router", "deepseek_v3": "gate", "phimoe": "router"}  # one with a bias, one nn.Linear
IDS = torch.arange(3, 43)[None]
RTN = wb.recipe("rtn", bits=3, group=16)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("routers")
    return {family: write_checkpoint(family, root / family) for family in FAMILIES}


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> ModelHandle:
    monkeypatch.setenv(VARIABLE, "reference")  # compiled products round their inputs, which moves tokens to other experts
    return open_model(folders[request.param])


def patterns(model: ModelHandle) -> str:
    return f"*.{model.router_names[0].rpartition('.')[2]}"


def seen_by(model: ModelHandle, name: str, windows: list[Tensor]) -> Tensor:
    seen: list[Tensor] = []
    hook = model.module.get_submodule(name).register_forward_pre_hook(lambda _module, args: seen.append(args[0].flatten(0, -2)))
    for window in windows:
        model.run(window)
    hook.remove()
    return torch.cat(seen)


def test_they_are_layers_where_they_are_named(model: ModelHandle) -> None:
    names = model.router_names
    assert names
    assert model.select("*") == model.layer_names
    assert not set(names) & set(model.layer_names)
    assert model.select(patterns(model)) == names
    assert set(names) <= set(model.layers(optional=True)["name"])
    for name in names:
        router = model.module.get_submodule(name)
        assert torch.equal(model.weight(name).float(), router.get_parameter("weight"))
        assert model.layer(name).block is not None


def test_saved_and_loaded_they_are_the_same_model(model: ModelHandle, tmp_path: Path) -> None:
    quantized = wb.quantize_model(model, RTN, layers=f"*,{patterns(model)}")
    assert set(model.router_names) <= set(quantized.layers)
    assert "routers" not in quantized.unquantized
    loaded = wb.load(wb.save(quantized, tmp_path / "out", model))
    assert isinstance(loaded.module.get_submodule(model.router_names[0]), PackedModule)
    assert isinstance(loaded.module.get_submodule(model.router_names[0]), type(model.module.get_submodule(model.router_names[0])))
    assert loaded.coverage == quantized.coverage
    torch.testing.assert_close(loaded.logits(IDS), build_packed_copy(model, quantized.layers).logits(IDS), atol=0, rtol=0)
    with model.swapped({name: layer.weight() for name, layer in quantized.layers.items()}):
        torch.testing.assert_close(loaded.logits(IDS), model.language_model().logits(IDS), atol=1e-4, rtol=1e-4)
    blocks = {name: layer for name, layer in quantized.layers.items() if name not in model.router_names}
    assert not torch.allclose(build_packed_copy(model, blocks).logits(IDS), loaded.logits(IDS), atol=1e-3)
    plugin = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(plugin(IDS).logits[0], loaded.logits(IDS)[0], atol=0, rtol=0)
    uncached = wb.load(tmp_path / "out", cache="none")
    torch.testing.assert_close(uncached.logits(IDS), loaded.logits(IDS), atol=1e-5, rtol=1e-5)
    assert uncached.resident_bytes < loaded.resident_bytes


@pytest.mark.parametrize("stream", ["never", "always"])
def test_their_inputs_are_measured(stream: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.calibration import iterate_windows

    monkeypatch.setenv("WORKBENCH_STREAM", stream)
    model, text = open_model(folders["mixtral"]), wb.text("calibration")
    name = model.router_names[-1]
    stats = wb.calibrate(model, text, tokens=100, layers=[name])
    assert list(stats) == [name]
    x = seen_by(model, name, list(iterate_windows(model, text, 100, 0)))
    torch.testing.assert_close(stats[name].moment, x.T @ x / len(x), atol=1e-4, rtol=1e-4)
    assert set(wb.calibrate(model, text, tokens=100)) <= set(model.layer_names)


def test_in_sequence_they_are_quantized_in_their_block(model: ModelHandle) -> None:
    text, recipe, name = wb.text("calibration"), wb.recipe("gptq", bits=3), model.router_names[-1]
    alone = wb.quantize_model(model, recipe, text=text, tokens=100, layers=name).layers[name]
    by_stats = wb.quantize(model, name, recipe, wb.calibrate(model, text, tokens=100, layers=[name]))
    torch.testing.assert_close(alone.weight(), by_stats.weight())
    behind = wb.quantize_model(model, recipe, text=text, tokens=100, layers=f"*,{patterns(model)}")
    assert list(behind.layers) == [*model.layer_names, *model.router_names]
    assert behind.layers[name].output_error != alone.output_error
    assert behind.layers[name].output_error is not None


def test_what_if_runs_from_their_block(folders: dict[str, Path]) -> None:
    model = open_model(folders["mixtral"])
    entered: list[int] = []
    name = model.router_names[-1]
    layer = wb.quantize(model, name, RTN)
    from workbench.analysis.predictions.suffix_replay import Replay

    replay = Replay(model, wb.text("evaluation"), tokens=60)
    hook = model.module.get_submodule(model.layer_names[0]).register_forward_pre_hook(lambda *_: entered.append(1))
    assert replay.divergence({name: layer}).kl > 0
    hook.remove()
    assert not entered


def test_rounding_their_input_is_refused(folders: dict[str, Path]) -> None:
    model = open_model(folders["mixtral"])
    rounding = RTN.replace(activations=wb.part("activations", "per-token"))
    with pytest.raises(RecipeError, match="the router 'model.layers.0.mlp.gate' does its own matmul"):
        wb.quantize_model(model, rounding, layers=f"*,{patterns(model)}")
    assert wb.quantize_model(model, rounding, layers="*.down_proj.0").layers


def test_an_unmatched_pattern_says_how_routers_are_named(folders: dict[str, Path]) -> None:
    model = open_model(folders["mixtral"])
    with pytest.raises(RecipeError, match=r"but 2 routers like 'model\.layers\.0\.mlp\.gate', 'lm_head'"):
        wb.quantize_model(model, RTN, layers="*.gat?")
