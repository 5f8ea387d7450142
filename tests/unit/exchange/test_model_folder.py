"""Plain folders: transformers opens them without this package and computes what the packed layers compute."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import workbench as wb
from tests.tiny_models import write_model
from workbench.errors import ArtifactError, OutputError
from workbench.exchange.writing import model_folder, preflight
from workbench.models.handle import ModelHandle

IDS = torch.arange(3, 35)[None]
TOLERANCE = 0.03  # of the logits' spread: bfloat16 has 8 significant bits


def quantize(folder: Path, out: Path, recipe: wb.Recipe, layers: str = "*") -> Path:
    """A saved quantized model of a folder."""
    model = wb.open_model(folder)
    return wb.save(wb.quantize_model(model, recipe, layers=layers), out, model)


def read_logits(folder: Path) -> torch.Tensor:
    """What plain transformers computes, with the weights as they are stored and arithmetic in float32."""
    with torch.inference_mode():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(IDS).logits


def assert_alike(logits: torch.Tensor, expected: torch.Tensor) -> None:
    """Equal up to the rounding of weights to bfloat16."""
    torch.testing.assert_close(logits, expected, atol=TOLERANCE * float(expected.std()), rtol=0)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3", "gpt2", "opt"])
def test_transformers_computes_what_the_packed_model_does(tiny_models: dict[str, Path], tmp_path: Path, family: str) -> None:
    saved = quantize(tiny_models[family], tmp_path / "small", wb.recipe("rtn", bits=3, group=32))
    written = wb.export(saved, tmp_path / "plain", to="hf")
    assert_alike(read_logits(tmp_path / "plain"), wb.load(saved).logits(IDS))
    assert written.bytes == (tmp_path / "plain/model.safetensors").stat().st_size
    assert "quantization_config" not in json.loads((tmp_path / "plain/config.json").read_text())


@pytest.mark.parametrize("layers", ["*,lm_head", "*,*.embed_tokens"])
def test_a_tied_head_that_is_quantized(tmp_path: Path, layers: str) -> None:
    saved = quantize("builtin", tmp_path / "small", wb.recipe("rtn", bits=2, group=32), layers)
    wb.export(saved, tmp_path / "plain", to="hf")
    assert ("lm_head.weight" in load_file(tmp_path / "plain/model.safetensors")) == (layers == "*,lm_head")
    assert_alike(read_logits(tmp_path / "plain"), wb.load(saved).logits(IDS))


@pytest.mark.parametrize("recipe", ["hadamard", "fused"])
def test_transforms_are_undone(builtin: ModelHandle, tmp_path: Path, recipe: str) -> None:
    model = wb.fuse(builtin) if recipe == "fused" else builtin
    settings = {"bits": 4, "group": 32}
    small = wb.quantize_model(model, wb.recipe("rtn", **settings).replace(transform=wb.part("transform", "hadamard")))
    saved = wb.save(small, tmp_path / "small", builtin)
    wb.export(saved, tmp_path / "plain", to="hf")
    assert_alike(read_logits(tmp_path / "plain"), wb.load(saved).logits(IDS))


def test_an_original_and_its_tokenizer(tmp_path: Path, builtin: ModelHandle) -> None:
    written = wb.export(builtin, tmp_path / "plain", to="hf")
    assert_alike(read_logits(tmp_path / "plain"), builtin.language_model().logits(IDS))
    text = "Once upon a time, there was a “naïve” fox."
    assert AutoTokenizer.from_pretrained(tmp_path / "plain")(text)["input_ids"] == builtin.encode(text)[0].tolist()
    assert {outcome.kind for outcome in written.outcomes} == {"embedding", "layers", "norms"}
    assert list(written.losses) == ["rounded to BF16"]
    for name, tensor in load_file(tmp_path / "plain/model.safetensors").items():
        assert torch.equal(tensor, builtin.tensor(name).bfloat16())


def test_an_export_replaces_an_export_and_nothing_else(builtin: ModelHandle, tmp_path: Path) -> None:
    wb.export(builtin, tmp_path / "plain", to="hf")
    wb.export(builtin, tmp_path / "plain", to="hf")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="holds other files"):
        wb.export(builtin, tmp_path / "mine", to="hf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "plain"]


def test_strict_refuses_what_is_rounded(tmp_path: Path) -> None:
    saved = quantize("builtin", tmp_path / "small", wb.recipe("rtn", bits=4, group=32), "*.0.mlp.*")
    with pytest.raises(ArtifactError, match=r"3 of 3 quantized layers cannot be held exactly: 3 would be rounded to BF16, first"):
        wb.export(saved, tmp_path / "plain", to="hf", strict=True)
    assert not (tmp_path / "plain").exists()


def test_a_full_disk_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"takes 1,000 bytes, and .* has 999 free"):
        preflight.check_disk(tmp_path / "plain", 1000, lambda _: 999)
    preflight.check_disk(tmp_path / "plain", 1000, lambda _: 1000)


@pytest.mark.parametrize(
    ("source", "to", "message"),
    [
        pytest.param(lambda small: small, "hf", "save it with wb.save and give that folder", id="not-saved"),
        pytest.param(lambda _: "builtin", "onnx", "unknown format 'onnx' to export to; use ", id="unknown-format"),
    ],
)
def test_mistakes_are_one_sentence(builtin: ModelHandle, tmp_path: Path, source: Callable, to: str, message: str) -> None:
    small = wb.quantize_model(builtin, wb.recipe("rtn", bits=4), layers="*.0.mlp.down_proj")
    with pytest.raises(ArtifactError, match=message):
        wb.export(source(small), tmp_path / "plain", to=to)
    assert not (tmp_path / "plain").exists()


def test_only_one_tensor_is_in_memory(builtin: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    stream = model_folder.stream_tensors

    def watch(path: Path, declared: dict, read: Callable) -> None:
        def noted(name: str) -> torch.Tensor:
            order.append(f"{name} at {path.stat().st_size > 0}")
            return read(name)

        stream(path, declared, noted)

    monkeypatch.setattr(model_folder, "stream_tensors", watch)
    wb.export(builtin, tmp_path / "plain", to="hf")
    assert len(order) == len(set(order)) == 56  # each tensor is made once, when its turn in the file has come


def test_a_mixture_of_experts(tmp_path: Path) -> None:
    import transformers as t

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = t.MixtralConfig(
            vocab_size=512, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, num_local_experts=4, max_position_embeddings=128, sliding_window=None,
        )  # fmt: skip
        module = t.MixtralForCausalLM(config)
        for parameter in module.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    folder = write_model("llama", tmp_path / "model")
    (folder / "model.safetensors").unlink()
    module.save_pretrained(folder)
    saved = quantize(folder, tmp_path / "small", wb.recipe("rtn", bits=4, group=32))
    wb.export(saved, tmp_path / "plain", to="hf")
    assert_alike(read_logits(tmp_path / "plain"), wb.load(saved).logits(IDS))
