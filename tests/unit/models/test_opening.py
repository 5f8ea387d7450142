"""What `open_model` accepts, and the one sentence it says about everything else."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.modules.module import _global_parameter_registration_hooks

from tests.tiny_models import write_model
from workbench.errors import ModelError
from workbench.models import open_model
from workbench.models.architecture import _use_meta_parameters

Spoil = Callable[[Path], object]


@pytest.fixture
def folder(tiny_models: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the tiny Llama that a test may spoil."""
    return Path(shutil.copytree(tiny_models["llama"], tmp_path / "llama"))


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    """A tiny Llama in several shards."""
    return write_model("llama", tmp_path / "sharded", shard_size="100KB")


def edit_json(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def edit_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(path)
    change(tensors)
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})


def as_pickle(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def scramble(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(b"\xff" * 64 + path.read_bytes()[64:])


def change_shape(folder: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    edit_tensors(folder / "model.safetensors", lambda tensors: tensors.update({name: torch.zeros(64, 64)}))


SPOILED = {
    "no-config": (lambda f: (f / "config.json").unlink(), "has no config.json; give a model folder"),
    "config-not-json": (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON: Expecting"),
    "config-a-list": (lambda f: (f / "config.json").write_text("[1]"), "config.json is not a JSON object"),
    "config-nonsense": (lambda f: edit_json(f / "config.json", num_attention_heads="many"), "cannot be opened by transformers"),
    "unknown-type": (
        lambda f: edit_json(f / "config.json", model_type="lama"),
        "model_type 'lama', which the installed transformers",
    ),
    "remote-code": (
        lambda f: edit_json(f / "config.json", model_type="mine", auto_map={"AutoModel": "code.Mine"}),
        r"own Python code \(auto_map\), which is never run",
    ),
    "already-quantized": (
        lambda f: edit_json(f / "config.json", quantization_config={"quant_method": "quip"}),
        r"already quantized \('quip'\), and what can be read is awq, .*: open the original",
    ),
    "pickle-only": (as_pickle, r"only as pickle \(pytorch_model.bin\), which is never loaded.*save_pretrained"),
    "no-weights": (lambda f: (f / "model.safetensors").unlink(), "neither model.safetensors nor model.safetensors.index.json"),
    "truncated": (truncate, "model.safetensors is damaged or incomplete"),
    "corrupt-header": (scramble, "model.safetensors is damaged or incomplete"),
    "missing-weight": (
        lambda f: edit_tensors(f / "model.safetensors", lambda t: t.pop("model.layers.1.mlp.up_proj.weight")),
        "has no weight 'model.layers.1.mlp.up_proj.weight'",
    ),
    "wrong-shape": (change_shape, r"stores 'model.layers.0.mlp.up_proj.weight' as \[64, 64\], but config.json says \[128, 64\]"),
}


@pytest.mark.parametrize(("spoil", "sentence"), SPOILED.values(), ids=SPOILED.keys())
def test_a_spoiled_folder_gets_one_sentence(folder: Path, spoil: Spoil, sentence: str) -> None:
    open_model(folder)
    spoil(folder)
    with pytest.raises(ModelError, match=sentence) as caught:
        open_model(folder)
    assert "\n" not in str(caught.value)


def test_remote_code_that_is_not_needed_is_ignored(folder: Path) -> None:
    edit_json(folder / "config.json", auto_map={"AutoConfig": "code.Mine"})
    (folder / "code.py").write_text("raise SystemExit('remote code ran')")
    assert len(open_model(folder).layer_names) == 14


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        pytest.param("buildin", "no folder 'buildin'; use 'builtin', a folder", id="typo"),
        pytest.param("/nowhere/at/all", "no folder '/nowhere/at/all'; use 'builtin'", id="absolute"),
        pytest.param("./owner/name", "no folder './owner/name'; use 'builtin'", id="relative"),
        pytest.param("", "no folder ''|has no config.json", id="empty"),
        pytest.param("nobody/nothing-of-this-name", "neither in the local cache nor reachable", id="hub-offline"),
    ],
)
def test_a_source_that_is_not_there(source: str, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence) as caught:
        open_model(source)
    assert "\n" not in str(caught.value)


def test_a_file_instead_of_a_folder(folder: Path) -> None:
    with pytest.raises(ModelError, match=f"is one file of a model; give its folder, '{folder}'"):
        open_model(folder / "model.safetensors")


def test_shards_open_like_one_file(sharded: Path, tiny_models: dict[str, Path]) -> None:
    assert len(list(sharded.glob("*.safetensors"))) > 3
    whole, split = open_model(tiny_models["llama"]), open_model(sharded)
    for name in whole.layer_names:
        assert torch.equal(whole.weight(name), split.weight(name))


def test_a_missing_shard(sharded: Path) -> None:
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ModelError, match=f"lacks 1 of .* shards: {shard.name}; download"):
        open_model(sharded)


def test_a_tensor_in_the_index_but_not_in_its_shard(sharded: Path) -> None:
    index = sharded / "model.safetensors.index.json"
    table = json.loads(index.read_text())
    table["weight_map"]["model.layers.7.extra"] = sorted(table["weight_map"].values())[0]
    index.write_text(json.dumps(table))
    with pytest.raises(ModelError, match="holds 'model.layers.7.extra', but it does not"):
        open_model(sharded)


@pytest.mark.parametrize(
    ("index", "sentence"),
    [
        pytest.param("{", "index.json is not JSON: Expecting", id="not-json"),
        pytest.param('{"metadata": {}}', "is not a safetensors index", id="no-map"),
        pytest.param('{"weight_map": {}}', "lacks all shards", id="empty"),
        pytest.param('{"weight_map": {"a": 3}}', "weight_map.a is 3; it must be text", id="a-number"),
        pytest.param('{"weight_map": {"a": "/x/m.safetensors"}}', "shards outside of the folder, first '/x/m", id="absolute"),
        pytest.param(
            '{"weight_map": {"a": "../llama/model.safetensors"}}',
            "names 1 shards outside of the folder, first '../llama",
            id="other-folder",
        ),
    ],
)
def test_a_broken_index(sharded: Path, index: str, sentence: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelError, match=sentence):
        open_model(sharded)


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=["nan", "inf"])
def test_weights_that_are_not_finite_are_counted(folder: Path, value: float) -> None:
    name = "model.layers.1.mlp.up_proj"
    edit_tensors(folder / "model.safetensors", lambda t: t[f"{name}.weight"][3, 4:6].fill_(value))
    model = open_model(folder)
    with pytest.raises(ModelError, match=f"layer '{name}' .* holds 2 of 8192 values that are NaN or infinite"):
        model.weight(name)
    assert torch.isfinite(model.weight("model.layers.0.mlp.up_proj")).all()
    with pytest.raises(ModelError, match=f"weight '{name}.weight' holds 2 of 8192"):
        model.language_model()


def test_a_weight_outside_of_the_layers_that_is_missing_is_never_made_up(folder: Path) -> None:
    edit_tensors(folder / "model.safetensors", lambda t: t.pop("model.norm.weight"))
    with pytest.raises(ModelError, match="lacks 1 weights of its architecture, first 'model.norm.weight'"):
        open_model(folder).language_model()


def test_a_model_without_linear_layers(tmp_path: Path) -> None:
    from transformers import ResNetConfig, ResNetModel

    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8], depths=[1])).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"no linear layers in its blocks \(ResNetModel\); nothing to quantize"):
        open_model(tmp_path)


def test_a_checkpoint_saved_with_or_without_the_prefix(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    stripped = Path(shutil.copytree(tiny_models["gpt2"], tmp_path / "gpt2"))
    edit_tensors(
        stripped / "model.safetensors",
        lambda t: [t.update({name.removeprefix("transformer."): t.pop(name)}) for name in list(t)],
    )
    whole, without = open_model(tiny_models["gpt2"]), open_model(stripped)
    assert whole.layer_names == without.layer_names
    name = whole.layer_names[0]
    assert torch.equal(whole.weight(name), without.weight(name))
    assert torch.equal(
        whole.language_model().logits(torch.arange(5)[None]), without.language_model().logits(torch.arange(5)[None])
    )


def test_a_folder_without_a_tokenizer_opens_and_says_so_when_text_is_needed(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    model = open_model(folder)
    assert model.weight(model.layer_names[0]).shape == (64, 64)
    with pytest.raises(ModelError, match="has no tokenizer"):
        model.generate("Once")


def test_other_threads_build_as_ever_while_a_model_is_opened() -> None:
    """Torch walks through its hooks at each parameter, in every thread: none may come or go meanwhile."""
    before, built = dict(_global_parameter_registration_hooks), []
    with _use_meta_parameters():
        assert nn.Linear(2, 2).weight.is_meta
        assert dict(_global_parameter_registration_hooks) == before
        other = threading.Thread(target=lambda: built.append(nn.Linear(2, 2)))
        other.start()
        other.join()
    assert not built[0].weight.is_meta
    assert not nn.Linear(2, 2).weight.is_meta
