"""The token embedding as a layer that is quantized where it is named: alone, with the blocks, and with the head it is tied to."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM

import workbench as wb
from tests.tiny_models import write_model
from workbench.analysis.predictions.suffix_replay import Replay
from workbench.artifact.quantized_copy import build_packed_copy
from workbench.errors import ModelError, RecipeError
from workbench.kernels.matmul.packed_linear import PackedLinear
from workbench.kernels.matmul.packed_module import PackedEmbedding
from workbench.models import ModelHandle, fuse, open_model

RTN = wb.recipe("rtn", bits=3, group=32)
IDS = torch.tensor([[1, 5, 9, 33, 100, 7]])
NAMES = {
    "llama": "model.embed_tokens",
    "gemma3": "model.embed_tokens",
    "gpt2": "transformer.wte",
    "opt": "model.decoder.embed_tokens",
}
TIED = ("gemma3", "gpt2", "opt")


def logits(model: ModelHandle) -> Tensor:
    return model.language_model().logits(IDS)


@pytest.mark.parametrize("family", NAMES)
def test_it_is_known_and_not_among_the_layers(family: str, tiny_models: dict[str, Path]) -> None:
    model = open_model(tiny_models[family])
    name = NAMES[family]
    assert model.embedding_name == name
    assert name not in model.layer_names
    assert model.select("*") == model.layer_names
    assert model.select(f"*.{name.rpartition('.')[2]}") == [name]
    row = model.layers(optional=True).set_index("name").loc[name]
    assert [row["rows"], row["cols"]] == list(model.module.get_parameter(f"{name}.weight").shape)
    assert torch.equal(model.weight(name), model.tensor(f"{name}.weight"))
    assert model.tied_head == ("lm_head" if family in TIED else None)


def test_an_encoder_has_one(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    model = open_model(tiny_models["bert"])
    assert model.optional_names == ["embeddings.word_embeddings"]
    loaded = wb.load(wb.save(wb.quantize_model(model, RTN, layers="*.word_embeddings"), tmp_path / "out", model))
    with model.swapped({name: layer.weight() for name, layer in loaded.quantized.layers.items()}):
        expected = model.run(IDS).last_hidden_state
    torch.testing.assert_close(loaded.module(IDS).last_hidden_state, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("others", ["", "*,"])
def test_saved_and_loaded_it_is_the_same_model(family: str, others: str, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    model, name = open_model(tiny_models[family]), NAMES[family]
    quantized = wb.quantize_model(model, RTN, layers=f"{others}{name}")
    assert list(quantized.layers) == [*(model.layer_names if others else ()), name]
    out = wb.save(quantized, tmp_path / "out", model)
    loaded = wb.load(out)
    assert isinstance(loaded.module.get_submodule(name), PackedEmbedding)
    assert isinstance(loaded.module.get_submodule("lm_head"), PackedLinear) == (family != "llama")
    torch.testing.assert_close(loaded.logits(IDS), build_packed_copy(model, quantized.layers).logits(IDS), atol=0, rtol=0)
    with model.swapped({name: layer.weight() for name, layer in quantized.layers.items()}):
        torch.testing.assert_close(loaded.logits(IDS), logits(model), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(loaded.logits(IDS), logits(model), atol=1e-2)
    assert loaded.coverage == quantized.coverage
    assert loaded.file_ledger.weights == sum(parameter.numel() for parameter in model.module.parameters())
    assert f"{name}.weight" not in load_file(out / "packed.safetensors")
    plugin = AutoModelForCausalLM.from_pretrained(out)
    assert isinstance(plugin.get_input_embeddings(), PackedEmbedding)
    torch.testing.assert_close(plugin(IDS).logits[0], loaded.logits(IDS)[0], atol=0, rtol=0)
    bare = AutoModel.from_pretrained(out)
    assert isinstance(bare.get_input_embeddings(), PackedEmbedding)


@pytest.mark.parametrize("family", TIED)
def test_tied_to_the_head_it_is_one_matrix_that_counts_once(family: str, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    model, name = open_model(tiny_models[family]), NAMES[family]
    both = wb.quantize_model(model, RTN, layers=f"*,lm_head,{name}")
    alone = wb.quantize_model(model, RTN, layers=f"*,{name}")
    assert list(both.layers) == list(alone.layers) == [*model.layer_names, name]
    assert "head" not in both.unquantized
    out = wb.save(both, tmp_path / "out", model)
    assert json.loads((out / "config.json").read_text()).get("tie_word_embeddings", True) is True
    loaded = wb.load(out)
    head, embedding = loaded.module.get_submodule("lm_head"), loaded.module.get_submodule(name)
    assert isinstance(head, PackedLinear)
    assert isinstance(embedding, PackedEmbedding)
    assert {t.data_ptr() for t in head.packed.tensors.values()} == {t.data_ptr() for t in embedding.packed.tensors.values()}


def test_two_recipes_for_one_matrix_are_refused(tiny_models: dict[str, Path]) -> None:
    plan = wb.LayerPlan((("lm_head", RTN), ("model.embed_tokens", wb.recipe("rtn", bits=4)), ("*", None)))
    with pytest.raises(RecipeError, match="'lm_head' and 'model.embed_tokens' are one matrix"):
        wb.quantize_model(open_model(tiny_models["gemma3"]), plan)
    assert list(wb.quantize_model(open_model(tiny_models["llama"]), plan).layers) == ["lm_head", "model.embed_tokens"]


@pytest.mark.parametrize("stored", ["lm_head.weight", "both"])
def test_a_tied_matrix_is_not_left_behind_under_the_other_name(stored: str, tmp_path: Path) -> None:
    source = write_model("gemma3", tmp_path / "model")
    tensors = load_file(source / "model.safetensors")
    matrix = tensors["model.embed_tokens.weight"] if stored == "both" else tensors.pop("model.embed_tokens.weight")
    save_file({**tensors, "lm_head.weight": matrix.clone()}, source / "model.safetensors", metadata={"format": "pt"})
    model = open_model(source)
    assert model.tied_head == "lm_head"
    quantized = wb.quantize_model(model, RTN, layers="*,model.embed_tokens")
    out = wb.save(quantized, tmp_path / "out", model)
    assert not {"lm_head.weight", "model.embed_tokens.weight"} & set(load_file(out / "packed.safetensors"))
    loaded = wb.load(out)
    torch.testing.assert_close(loaded.logits(IDS), build_packed_copy(model, quantized.layers).logits(IDS), atol=0, rtol=0)
    assert loaded.coverage == quantized.coverage


def test_a_fused_model_packs_its_rotated_embedding_and_keeps_its_head(builtin: ModelHandle, tmp_path: Path) -> None:
    fused = fuse(builtin)
    assert fused.tied_head is None
    quantized = wb.quantize_model(fused, wb.recipe("rtn", bits=8, group=64), layers="*,model.embed_tokens")
    assert "lm_head.weight" in quantized.changed_tensors
    loaded = wb.load(wb.save(quantized, tmp_path / "out", builtin))
    assert not isinstance(loaded.module.get_submodule("lm_head"), PackedLinear)
    torch.testing.assert_close(loaded.logits(IDS), logits(builtin), atol=0.5, rtol=0.05)
    torch.testing.assert_close(loaded.logits(IDS), build_packed_copy(fused, quantized.layers).logits(IDS), atol=2e-2, rtol=1e-2)


@pytest.mark.parametrize("family", ["gemma3", "llama"])
def test_in_sequence_the_blocks_read_the_quantized_embedding(
    family: str, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, text, recipe, name = open_model(tiny_models[family]), wb.text("calibration"), wb.recipe("gptq", bits=3), NAMES[family]
    first = "model.layers.0.self_attn.q_proj"
    result = wb.quantize_model(model, recipe, text=text, tokens=150, layers=f"{first},{name}")
    assert list(result.layers) == [first, name]
    assert "unreached" not in result.calibration
    assert result.layers[name].output_error is None
    assert torch.equal(result.layers[name].weight(), wb.quantize(model, name, recipe).weight())
    with model.swapped({name: result.layers[name].weight()}):
        moment = wb.calibrate(model, text, tokens=150, layers=[first])[first].moment
    error, weight = result.layers[first].weight() - model.weight(first).float(), model.weight(first).float()
    lost = torch.trace(error @ moment @ error.T) / torch.trace(weight @ moment @ weight.T)
    assert result.layers[first].output_error == pytest.approx(float(lost), rel=1e-3)
    plain = wb.quantize_model(model, recipe, text=text, tokens=150, layers=first).layers[first]
    assert plain.output_error != result.layers[first].output_error
    monkeypatch.setenv("WORKBENCH_STREAM", "always")
    streamed = wb.quantize_model(open_model(tiny_models[family]), recipe, text=text, tokens=150, layers=f"{first},{name}")
    assert streamed.layers[first].output_error == pytest.approx(result.layers[first].output_error, rel=1e-5)
    assert torch.equal(streamed.layers[name].weight(), result.layers[name].weight())


def test_it_has_no_input_to_measure(tiny_models: dict[str, Path]) -> None:
    model, name = open_model(tiny_models["llama"]), NAMES["llama"]
    stats = wb.calibrate(model, wb.text("calibration"), tokens=50, layers=[*model.layer_names[:1], name])
    assert list(stats) == model.layer_names[:1]
    assert not stats.unreached
    with pytest.raises(ModelError, match="at least one that is not an embedding"):
        wb.calibrate(model, wb.text("calibration"), tokens=50, layers=[name])
    layer = wb.quantize(model, name, wb.recipe("gptq", bits=3), stats)
    assert layer.output_error is None
    assert 0 < layer.relative_error < 0.2
    both = wb.quantize_model(model, wb.recipe("gptq", bits=3), stats, layers=f"{model.layer_names[0]},{name}")
    assert both.layers[model.layer_names[0]].output_error is not None
    assert both.layers[name].output_error is None


def test_what_if_changes_the_tied_head_with_it(tiny_models: dict[str, Path]) -> None:
    model, text = open_model(tiny_models["gemma3"]), wb.text("evaluation")
    name, replay = NAMES["gemma3"], Replay(model, text, tokens=60)
    layer = wb.quantize(model, name, RTN)
    both = replay.divergence({name: layer.weight(), "lm_head": layer.weight()}).kl
    assert wb.what_if(model, name, layer, text, tokens=60).kl == pytest.approx(both, rel=1e-5)
    assert replay.divergence({"lm_head": layer.weight()}).kl != pytest.approx(both, rel=1e-2)
    assert model.module.get_parameter("lm_head.weight") is model.module.get_parameter(f"{name}.weight")


def test_a_recipe_that_learns_from_blocks_is_refused_for_it(tiny_models: dict[str, Path]) -> None:
    learned = RTN.replace(transform=wb.part("transform", "learned"))
    with pytest.raises(RecipeError, match="'learned' works on the output of a block, and 'model.embed_tokens' is in no block"):
        wb.quantize_model(
            open_model(tiny_models["llama"]), learned, text=wb.text("calibration"), tokens=50, layers="*,*.embed_tokens"
        )
