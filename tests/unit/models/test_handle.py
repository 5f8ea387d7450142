"""ModelHandle: lazy reading, fingerprints, layer names, swapping layers."""

import re
import threading
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from tests.tiny_models import write_model
from workbench.errors import ModelError, ShapeError
from workbench.models import ModelHandle, checkpoint, open_model


@pytest.fixture
def model(tiny_models: dict[str, Path]) -> ModelHandle:
    return open_model(tiny_models["llama"])


def test_reading_one_weight_opens_only_its_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model("llama", tmp_path / "sharded", shard_size="100KB")
    model = open_model(folder)
    name = "model.layers.0.mlp.down_proj"
    expected = model.weight(name)
    opened: list[str] = []
    original = checkpoint.safe_open

    def watched(file: Path, framework: str) -> object:
        opened.append(Path(file).name)
        return original(file, framework=framework)

    monkeypatch.setattr(checkpoint, "safe_open", watched)
    home = model._tensors.checkpoint.entries[f"{name}.weight"].file
    for shard in folder.glob("*.safetensors"):
        if shard != home:
            shard.unlink()
    assert torch.equal(model.weight(name), expected)
    assert opened == [home.name]


def test_listing_and_reading_never_load_the_model(model: ModelHandle) -> None:
    model.layers()
    model.weight(model.layer_names[3])
    assert "_module" not in vars(model)
    model.language_model()
    assert "_module" in vars(model)


def test_the_fingerprint_follows_weights_and_config(tmp_path: Path, model: ModelHandle) -> None:
    same = write_model("llama", tmp_path / "same")
    assert open_model(same).fingerprint == model.fingerprint
    assert open_model(write_model("llama", tmp_path / "other", seed=1)).fingerprint != model.fingerprint
    config = same / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    assert open_model(same).fingerprint != model.fingerprint


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "vocab.txt", "spiece.model", "added_tokens.json"])
def test_the_fingerprint_follows_the_tokenizer(tmp_path: Path, name: str) -> None:
    folder = write_model("llama", tmp_path / "model")
    before = open_model(folder).fingerprint
    (folder / name).write_text("another")
    assert open_model(folder).fingerprint != before


def test_every_tokenizer_file_that_transformers_knows_is_in_the_fingerprint() -> None:
    sources = Path(transformers.__file__).parent.rglob("tokenization*.py")
    tables = [table for path in sources for table in re.findall(r"VOCAB_FILES_NAMES = {([^}]*)}", path.read_text("utf-8"))]
    names = {name for table in tables for name in re.findall(r':\s*"([^"]+)"', table)}
    assert len(names) > 10
    assert not [name for name in names if not any(fnmatch(name, pattern) for pattern in checkpoint.FINGERPRINT_PATTERNS)]


def test_an_unknown_layer_is_answered_with_the_nearest(model: ModelHandle) -> None:
    sentence = r"unknown layer 'model.layers.0.mlp.downproj'; did you mean 'model.layers.0.mlp.down_proj'\? .* lists all 14"
    for ask in (model.weight, model.bias, lambda name: model.swapped({name: torch.zeros(1)}).__enter__()):
        with pytest.raises(ModelError, match=sentence):
            ask("model.layers.0.mlp.downproj")


def test_several_swaps_come_back_after_an_exception(model: ModelHandle) -> None:
    lm, ids = model.language_model(), torch.arange(3, 20)[None]
    before = lm.logits(ids)
    modules = dict(model.module.named_modules())
    first, second = model.layer_names[2], model.layer_names[5]
    with pytest.raises(ValueError, match="planted"), model.swapped({first: nn.Identity(), second: 0 * model.weight(second)}):
        raise ValueError("planted")
    assert dict(model.module.named_modules()) == modules
    assert torch.equal(lm.logits(ids), before)


def test_nothing_is_replaced_when_one_replacement_is_wrong(model: ModelHandle) -> None:
    good, bad = model.layer_names[:2]
    parameter = model.module.get_submodule(good).weight
    wrong = {good: torch.zeros_like(parameter), bad: torch.zeros(3, 4)}
    with (
        pytest.raises(ShapeError, match=rf"layer '{bad}' is \[32, 64\]; a weight of \[3, 4\] cannot replace it"),
        model.swapped(wrong),
    ):
        pass
    assert model.module.get_submodule(good).weight is parameter


def test_another_thread_never_sees_swapped_layers(model: ModelHandle) -> None:
    lm, ids = model.language_model(), torch.arange(3, 20)[None]
    before, seen = lm.logits(ids), []
    reader = threading.Thread(target=lambda: seen.append(lm.logits(ids)))
    name = model.layer_names[0]
    with model.swapped({name: torch.zeros_like(model.weight(name))}):
        reader.start()
        reader.join(0.2)
        assert not seen
        assert not torch.equal(lm.logits(ids), before)
    reader.join(10)
    assert torch.equal(seen[0], before)


def test_an_encoder_opens_for_layer_work_but_writes_no_text(tiny_models: dict[str, Path]) -> None:
    model = open_model(tiny_models["bert"])
    name = "encoder.layer.1.output.dense"
    assert model.weight(name).shape == (64, 128)
    with model.swapped({name: torch.zeros(64, 128)}):
        assert model.module(torch.arange(5)[None]).last_hidden_state.shape == (1, 5, 64)
    with pytest.raises(ModelError, match=r"\(BertModel\) is not a causal language model"):
        model.language_model()


def test_half_precision_is_kept_as_stored(builtin: ModelHandle) -> None:
    name = builtin.layer_names[0]
    assert builtin.weight(name).dtype == torch.float16
    assert builtin.module.get_submodule(name).weight.dtype == torch.float32


@pytest.mark.shared
def test_stories260k_opens_and_writes_a_story(stories260k: ModelHandle) -> None:
    table = stories260k.layers()
    assert (len(table), table.parameters.sum()) == (35, 226_560)
    story = stories260k.generate("Once upon a time", tokens=60)
    assert story.startswith("Once upon a time, there was a little girl named Lily.")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_a_weight_keeps_its_stored_type(tmp_path: Path, dtype: torch.dtype) -> None:
    folder = write_model("llama", tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj"
    tensors[f"{name}.weight"] = tensors[f"{name}.weight"].to(dtype)
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model = open_model(folder)
    assert model.weight(name).dtype == dtype
    assert f"torch.{model.layer(name).dtype}" == str(dtype)
