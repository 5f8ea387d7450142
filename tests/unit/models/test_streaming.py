"""A streamed model gives exactly what the model in memory gives, and leaves nothing of a block behind."""

from pathlib import Path

import pytest
import torch

import workbench as wb
from tests.tiny_models import CAUSAL
from tests.zoo.checkpoints import write_checkpoint
from workbench.artifact import load, save
from workbench.artifact.quantized_copy import build_packed_copy
from workbench.errors import ModelError
from workbench.models import ModelHandle, fuse, open_model
from workbench.models.streaming import HEAD_ROWS, needs_streaming

IDS = torch.arange(3, 43)[None]
STORIES = wb.text("evaluation")


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_STREAM", "always")


def in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModelHandle:
    with monkeypatch.context() as patch:
        patch.setenv("WORKBENCH_STREAM", "never")
        model = open_model(folder)
        assert not model.streams
        _ = model.module
    return model


def half_precision(folder: Path, target: Path) -> Path:
    """The same model stored in bfloat16."""
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(target)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (target / name).write_bytes((folder / name).read_bytes())
    return target


@pytest.mark.parametrize("family", [*CAUSAL, "mixtral"])
def test_logits_are_those_of_the_model_in_memory(
    tiny_models: dict[str, Path], tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = tiny_models[family] if family in tiny_models else write_checkpoint(family, tmp_path / "plain")
    folder = half_precision(plain, tmp_path / "half")
    model, whole = open_model(folder), in_memory(folder, monkeypatch)
    expected = whole.language_model().logits(IDS)
    torch.testing.assert_close(model.language_model().logits(IDS), expected, rtol=1e-5, atol=1e-5)
    empty = {name for name, parameter in model.module.named_parameters() if parameter.is_meta}
    assert {f"{name}.weight" for name in model.layer_names} <= empty


def test_a_head_is_made_float32_some_rows_at_a_time(
    tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.models.streaming.HEAD_ROWS", 100)
    folder = half_precision(tiny_models["llama"], tmp_path / "half")
    model = open_model(folder)
    assert model.module.get_submodule("lm_head").weight.dtype == torch.bfloat16
    expected = in_memory(folder, monkeypatch).language_model().logits(IDS)
    torch.testing.assert_close(model.language_model().logits(IDS), expected, rtol=1e-5, atol=1e-5)
    assert HEAD_ROWS > 100


def test_every_step_gives_the_same(tiny_models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, whole = open_model(tiny_models["llama"]), in_memory(tiny_models["llama"], monkeypatch)
    name, recipe, calibration = model.layer_names[3], wb.recipe("rtn", bits=2), wb.text("calibration")
    stats = [wb.calibrate(each, calibration, tokens=200) for each in (model, whole)]
    for layer in model.layer_names:
        torch.testing.assert_close(stats[0][layer].moment, stats[1][layer].moment, rtol=1e-5, atol=1e-6)
    assert wb.what_if(model, name, recipe, STORIES, tokens=64).kl == wb.what_if(whole, name, recipe, STORIES, tokens=64).kl
    gptq = wb.recipe("gptq", bits=3)
    results = [wb.quantize_model(each, gptq, text=calibration, tokens=128) for each in (model, whole)]
    assert all(torch.equal(results[0].layers[layer].weight(), results[1].layers[layer].weight()) for layer in model.layer_names)
    assert model.perplexity(STORIES, tokens=64).perplexity == pytest.approx(
        whole.perplexity(STORIES, tokens=64).perplexity, rel=1e-6
    )
    loaded = load(save(results[0], tmp_path / "saved", model))
    torch.testing.assert_close(loaded.logits(IDS), build_packed_copy(model, results[0].layers).logits(IDS), rtol=1e-5, atol=1e-5)


def test_a_fused_model_is_streamed_too(builtin: ModelHandle) -> None:
    model = fuse(open_model("builtin"))
    assert model.streams
    torch.testing.assert_close(model.language_model().logits(IDS), builtin.language_model().logits(IDS), rtol=1e-3, atol=1e-3)


def test_an_error_in_a_block_leaves_it_empty(tiny_models: dict[str, Path]) -> None:
    model = open_model(tiny_models["llama"])
    with model.swapped({model.layer_names[-1]: torch.nn.Identity()}), pytest.raises(ModelError, match="cannot be run"):
        model.language_model().logits(IDS)
    assert model.module.get_submodule(model.layer_names[0]).weight.is_meta


def test_what_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_STREAM", "auto")
    assert needs_streaming(2 << 30)
    assert not needs_streaming(1 << 20)
    monkeypatch.setenv("WORKBENCH_STREAM", "sometimes")
    with pytest.raises(ModelError, match="WORKBENCH_STREAM is 'sometimes'; use always, never, or auto"):
        needs_streaming(1)
