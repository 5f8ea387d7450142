"""The output head as a layer that is quantized where it is named: alone or with the blocks, tied to the embedding or not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

import workbench as wb
from tests.tiny_models import write_model
from workbench.analysis.decisions.error_budget import error_budget
from workbench.analysis.predictions.suffix_replay import Replay
from workbench.artifact.quantized_copy import build_packed_copy
from workbench.errors import ModelError, RecipeError
from workbench.kernels.matmul.packed_linear import PackedLinear
from workbench.models import ModelHandle, fuse, open_model

HEAD, TIED, UNTIED = "lm_head", ("gemma3", "gpt2", "opt"), ("llama",)
RTN = wb.recipe("rtn", bits=3, group=32)
IDS = torch.tensor([[1, 5, 9, 33, 100, 7]])


def logits(model: ModelHandle) -> Tensor:
    return model.language_model().logits(IDS)


def embedding(folder: Path) -> Tensor:
    """The embedding as it lies in a saved folder."""
    tensors = load_file(folder / "packed.safetensors")
    return next(tensor for name, tensor in tensors.items() if "embed_tokens" in name or name.endswith("wte.weight"))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", ["a.0.q"]),
        ("lm_head", ["lm_head"]),
        ("*,lm_head", ["a.0.q", "lm_head"]),
        ("*.q , lm_head", ["a.0.q", "lm_head"]),
        ("*head", []),
        ("lm_hea?", []),
        ("lm_[h]ead", []),
        ("*.lm_head", []),
        ("*.q", ["a.0.q"]),
    ],
)
def test_a_pattern_takes_the_head_only_where_it_spells_it(pattern: str, names: list[str]) -> None:
    from workbench.models.layers import select_layers

    assert select_layers(["a.0.q"], [HEAD], pattern) == names


def test_a_nested_head_is_spelled_by_its_last_part() -> None:
    from workbench.models.layers import select_layers

    assert select_layers([], ["language_model.lm_head"], "*.lm_head") == ["language_model.lm_head"]
    assert select_layers([], ["language_model.lm_head"], "language_model.*") == []


def test_a_plan_takes_the_head_where_a_rule_spells_it(tiny_models: dict[str, Path]) -> None:
    model = open_model(tiny_models["llama"])
    plan = wb.LayerPlan(((HEAD, RTN), ("*.0.mlp.up_proj", RTN), ("*", None)))
    assert list(wb.quantize_model(model, plan).layers) == ["model.layers.0.mlp.up_proj", HEAD]
    assert list(wb.quantize_model(model, plan, layers="*.0.*").layers) == ["model.layers.0.mlp.up_proj"]
    assert HEAD not in wb.quantize_model(model, wb.LayerPlan.uniform(RTN)).layers


def test_the_head_is_known_and_not_among_the_layers(builtin: ModelHandle) -> None:
    assert builtin.head_name == HEAD
    assert HEAD not in builtin.layer_names
    assert HEAD not in set(builtin.layers()["name"])
    row = builtin.layers(optional=True).set_index("name", drop=False).loc[HEAD]
    assert row["name"] == HEAD
    assert row["block"] != row["block"]
    assert [row["rows"], row["cols"]] == list(builtin.weight(HEAD).shape)
    assert torch.equal(builtin.weight(HEAD), builtin.tensor("model.embed_tokens.weight"))
    assert builtin.is_tied(HEAD)


def test_an_encoder_has_no_head(tiny_models: dict[str, Path]) -> None:
    assert open_model(tiny_models["bert"]).head_name is None


def test_a_misspelt_head_is_named(builtin: ModelHandle) -> None:
    with pytest.raises(ModelError, match="unknown layer 'lm_haed'; did you mean 'lm_head'"):
        builtin.layer("lm_haed")
    with pytest.raises(RecipeError, match=r"\* matches anything but 'lm_head', 'model.embed_tokens', which have to be named"):
        wb.quantize_model(builtin, RTN, layers="*head")


@pytest.mark.parametrize("family", [*TIED, *UNTIED, "builtin"])
@pytest.mark.parametrize("pattern", [HEAD, "*,lm_head"])
def test_saved_and_loaded_it_is_the_same_model(
    family: str, pattern: str, tiny_models: dict[str, Path], builtin: ModelHandle, tmp_path: Path
) -> None:
    model = builtin if family == "builtin" else open_model(tiny_models[family])
    assert model.is_tied(HEAD) == (family not in UNTIED)
    quantized = wb.quantize_model(model, RTN, layers=pattern)
    assert list(quantized.layers) == [*(model.layer_names if pattern != HEAD else ()), HEAD]
    out = wb.save(quantized, tmp_path / "out", model)
    loaded = wb.load(out)
    assert isinstance(loaded.module.get_submodule(HEAD), PackedLinear)
    assert torch.equal(embedding(out), model.tensor(next(name for name in model.shapes if kind(name))))
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    expected = build_packed_copy(model, quantized.layers).logits(IDS)
    torch.testing.assert_close(loaded.logits(IDS), expected, atol=0, rtol=0)
    with model.swapped({name: layer.weight() for name, layer in quantized.layers.items()}):
        torch.testing.assert_close(loaded.logits(IDS), logits(model), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(loaded.logits(IDS), logits(model), atol=1e-2)
    assert loaded.coverage == quantized.coverage
    assert "head" not in quantized.unquantized
    plugin = AutoModelForCausalLM.from_pretrained(out)
    assert isinstance(plugin.get_output_embeddings(), PackedLinear)
    torch.testing.assert_close(plugin(IDS).logits[0], loaded.logits(IDS)[0], atol=0, rtol=0)


def kind(name: str) -> bool:
    return "embed_tokens" in name or name.endswith("wte.weight")


@pytest.mark.parametrize("family", ["gemma3", "llama", "gpt2"])
def test_transformers_builds_models_without_the_head(family: str, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    model = open_model(tiny_models[family])
    out = wb.save(wb.quantize_model(model, RTN, layers="*,lm_head"), tmp_path / "out", model)
    lm = AutoModelForCausalLM.from_pretrained(out)
    expected = lm.base_model(IDS).last_hidden_state
    torch.testing.assert_close(AutoModel.from_pretrained(out)(IDS).last_hidden_state, expected, atol=0, rtol=0)
    classifier = AutoModelForSequenceClassification.from_pretrained(out)
    torch.testing.assert_close(classifier.base_model(IDS).last_hidden_state, expected, atol=0, rtol=0)


def test_a_fused_model_packs_its_rotated_head(builtin: ModelHandle, tmp_path: Path) -> None:
    fused = fuse(builtin)
    assert not fused.is_tied(HEAD)
    quantized = wb.quantize_model(fused, wb.recipe("rtn", bits=8, group=64), layers="*,lm_head")
    assert f"{HEAD}.weight" not in quantized.changed_tensors
    loaded = wb.load(wb.save(quantized, tmp_path / "out", builtin))
    assert "head" not in loaded.quantized.unquantized
    torch.testing.assert_close(loaded.logits(IDS), logits(builtin), atol=0.5, rtol=0.05)


def test_a_checkpoint_that_stores_only_the_head(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    source = write_model("gemma3", tmp_path / "model")
    tensors = load_file(source / "model.safetensors")
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})
    model, usual = open_model(source), open_model(tiny_models["gemma3"])
    quantized = wb.quantize_model(model, RTN, layers="*,lm_head")
    assert quantized.unquantized == wb.quantize_model(usual, RTN, layers="*,lm_head").unquantized
    loaded = wb.load(wb.save(quantized, tmp_path / "out", model))
    torch.testing.assert_close(loaded.logits(IDS), build_packed_copy(model, quantized.layers).logits(IDS), atol=0, rtol=0)


@pytest.mark.parametrize("stream", ["never", "always"])
@pytest.mark.parametrize("family", ["gemma3", "llama"])
def test_its_inputs_are_measured(stream: str, family: str, tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_STREAM", stream)
    model, text = open_model(tiny_models[family]), wb.text("calibration")
    stats = wb.calibrate(model, text, tokens=150, layers=[model.layer_names[-1], HEAD])
    seen: list[Tensor] = []
    hook = model.module.get_submodule(HEAD).register_forward_pre_hook(lambda _module, args: seen.append(args[0][0]))
    from workbench.calibration import iterate_windows

    for window in iterate_windows(model, text, 150, 0):
        model.run(window)
    hook.remove()
    x = torch.cat(seen)
    torch.testing.assert_close(stats[HEAD].moment, x.T @ x / len(x), atol=1e-4, rtol=1e-4)
    assert list(stats) == [model.layer_names[-1], HEAD]


@pytest.mark.parametrize("family", ["gemma3", "llama", "opt"])
def test_in_sequence_the_head_comes_after_the_blocks(family: str, tiny_models: dict[str, Path]) -> None:
    model, text, recipe = open_model(tiny_models[family]), wb.text("calibration"), wb.recipe("gptq", bits=3)
    alone = wb.quantize_model(model, recipe, text=text, tokens=150, layers=HEAD)
    stats = wb.calibrate(model, text, tokens=150, layers=[HEAD])
    by_stats = wb.quantize(model, HEAD, recipe, stats)
    torch.testing.assert_close(alone.layers[HEAD].weight(), by_stats.weight())
    behind = wb.quantize_model(model, recipe, text=text, tokens=150, layers="*,lm_head")
    assert list(behind.layers) == [*model.layer_names, HEAD]
    blocks = {name: layer for name, layer in behind.layers.items() if name != HEAD}
    with model.swapped({name: layer.weight() for name, layer in blocks.items()}):
        moment = wb.calibrate(model, text, tokens=150, layers=[HEAD])[HEAD].moment
    error = behind.layers[HEAD].weight() - model.weight(HEAD).float()
    assert behind.layers[HEAD].output_error != alone.layers[HEAD].output_error
    energy = torch.trace(model.weight(HEAD).float() @ moment @ model.weight(HEAD).float().T)
    assert torch.trace(error @ moment @ error.T) / energy < 0.05


def test_a_recipe_that_learns_from_blocks_is_refused_for_it(tiny_models: dict[str, Path]) -> None:
    model = open_model(tiny_models["llama"])
    learned = RTN.replace(transform=wb.part("transform", "learned"))
    with pytest.raises(RecipeError, match="'learned' works on the output of a block, and 'lm_head' is in no block"):
        wb.quantize_model(model, learned, text=wb.text("calibration"), tokens=50, layers="*,lm_head")


def test_what_if_runs_only_the_head_again(builtin: ModelHandle) -> None:
    replay = Replay(builtin, wb.text("evaluation"), tokens=100)
    layer = wb.quantize(builtin, HEAD, wb.recipe("rtn", bits=2))
    entered: list[int] = []
    hook = builtin.module.get_submodule("model.layers.0.mlp.down_proj").register_forward_pre_hook(lambda *_: entered.append(1))
    found = replay.divergence({HEAD: layer})
    hook.remove()
    assert not entered
    assert found.kl > 0
    assert replay.divergence({HEAD: builtin.weight(HEAD)}).kl == 0
    assert wb.what_if(builtin, HEAD, layer, wb.text("evaluation"), tokens=100).kl == pytest.approx(found.kl)


def test_the_budget_counts_it(tiny_models: dict[str, Path]) -> None:
    model = open_model(tiny_models["llama"])
    quantized = wb.quantize_model(model, RTN, layers="*.1.mlp.*,lm_head")
    budget = error_budget(Replay(model, wb.text("evaluation"), tokens=50), quantized, top=2)
    row = budget.layers.set_index("name").loc[HEAD]
    assert row["block"] != row["block"]
    assert row["kl"] > 0


def test_the_embedding_stays_when_the_tied_head_is_swapped(tiny_models: dict[str, Path]) -> None:
    model = open_model(tiny_models["gemma3"])
    before = model.module.get_parameter("model.embed_tokens.weight").clone()
    with model.swapped({HEAD: torch.zeros_like(before)}):
        assert not logits(model).any()
        assert torch.equal(model.module.get_parameter("model.embed_tokens.weight"), before)
    assert model.module.get_parameter("lm_head.weight") is model.module.get_parameter("model.embed_tokens.weight")


def test_layers_of_another_model_are_refused(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    model, encoder = open_model(tiny_models["llama"]), open_model(tiny_models["bert"])
    quantized = replace(wb.quantize_model(model, RTN, layers=HEAD), source=encoder.source)
    with pytest.raises(ModelError, match="unknown layer 'lm_head'"):
        wb.save(quantized, tmp_path / "out", encoder)
