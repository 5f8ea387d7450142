"""Every bit figure says of what share of all weights it is: counted from shapes, tied tensors once, and kept by a file."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import workbench as wb
from tests.tiny_models import write_model
from workbench.artifact import load, save
from workbench.models import ModelHandle, fuse, open_model
from workbench.quantized import classify_tensor, describe_bits, format_percent

RTN = wb.recipe("rtn", bits=2, group=32)


def counted(model: ModelHandle) -> int:
    """All weights of a running module; a parameter that two names share counts once."""
    return sum(parameter.numel() for parameter in model.module.parameters())


def test_coverage_counts_all_weights_of_the_module(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    for family in ("llama", "gemma3", "gpt2", "opt"):
        model = open_model(tiny_models[family])
        quantized = wb.quantize_model(model, RTN)
        layers = sum(model.weight(name).numel() for name in model.layer_names)
        assert quantized.coverage == layers / counted(model)
        loaded = load(save(quantized, tmp_path / family, model))
        assert loaded.coverage == quantized.coverage
        config = json.loads((tmp_path / family / "config.json").read_text())
        assert config["quantization_config"]["coverage"] == quantized.coverage
        assert loaded.quantized.unquantized == quantized.unquantized
        assert loaded.file_ledger.weights == counted(model)
        assert loaded.bits_overall == pytest.approx(8 * loaded.bytes / counted(model))


def test_fewer_layers_cover_less(builtin: ModelHandle) -> None:
    every = wb.quantize_model(builtin, RTN)
    some = replace(every, layers={name: layer for name, layer in every.layers.items() if ".mlp." in name})
    assert some.coverage is not None
    assert every.coverage is not None
    assert 0 < some.coverage < every.coverage < 1
    assert list(some.unquantized) == ["other layers", "embedding", "norms"]


def test_a_head_of_its_own_counts_too(builtin: ModelHandle, tmp_path: Path) -> None:
    fused = fuse(builtin)
    quantized = wb.quantize_model(fused, RTN)
    assert quantized.unquantized["head"] == quantized.unquantized["embedding"]
    loaded = load(save(quantized, tmp_path / "out", builtin)).quantized
    assert loaded.coverage == quantized.coverage
    assert list(loaded.unquantized) == list(quantized.unquantized) == ["embedding", "head", "norms"], "equals by name"


def test_experts_are_counted_one_by_one(tmp_path: Path) -> None:
    import transformers as t

    config = t.MixtralConfig(
        vocab_size=512, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
        num_local_experts=4, max_position_embeddings=128,
    )  # fmt: skip
    t.MixtralForCausalLM(config).save_pretrained(tmp_path)
    model = open_model(tmp_path)
    quantized = wb.quantize_model(model, RTN)
    assert sum(torch.Size(shape).numel() for shape in model.shapes.values()) == counted(model)
    assert quantized.unquantized["routers"] == 4 * 64


def test_a_model_that_says_no_shapes_has_no_coverage(builtin: ModelHandle) -> None:
    bare = replace(wb.quantize_model(builtin, RTN, layers="*.0.mlp.*"), shapes={})
    assert (bare.coverage, bare.unquantized) == (None, {})
    assert bare.describe_bits() == f"{bare.bits_per_weight:.2f} stored bits per weight (2.00 nominal)"


def test_the_words(builtin: ModelHandle, tmp_path: Path) -> None:
    assert describe_bits(0.87, 0.8, 0.931, {"embedding": 5, "head": 4, "norms": 1}, 1.9) == (
        "0.87 stored bits per weight (0.80 nominal) in 93.1 % of the weights; the other 6.9 % (embedding, head, norms) "
        "are not quantized: 1.90 bits per weight overall"
    )
    quantized = wb.quantize_model(builtin, RTN, layers="*.0.mlp.*")
    assert quantized.describe_bits() in repr(quantized)
    loaded = load(save(quantized, tmp_path / "out", builtin))
    assert quantized.describe_bits(loaded.bits_overall) in repr(loaded)


@pytest.mark.parametrize(("share", "text"), [(0.931, "93.1 %"), (1.0, "100.0 %"), (0.99995, "99.995 %"), (0.00005, "0.005 %")])
def test_percent_never_rounds_to_all_or_nothing(share: float, text: str) -> None:
    assert format_percent(share) == text


KINDS = {
    "model.embed_tokens.weight": "embedding",
    "transformer.wte.weight": "embedding",
    "lm_head.weight": "head",
    "embed_out.weight": "head",
    "model.layers.0.mlp.gate.weight": "routers",
    "model.layers.0.block_sparse_moe.router.weight": "routers",
    "model.layers.0.mlp.up_proj.weight": "other layers",
    "model.layers.10.attention.wte.weight": "other layers",
}
VECTORS = {"model.norm.weight": "norms", "model.layers.0.q_proj.bias": "biases", "model.layers.0.mixer.A_log": "other vectors"}


@pytest.mark.parametrize("name", [*KINDS, *VECTORS])
def test_kinds_by_name(name: str) -> None:
    assert classify_tensor(name, (2, 3) if name in KINDS else (3,)) == (KINDS | VECTORS)[name]


def test_a_tied_head_that_is_stored_twice_counts_once(tmp_path: Path) -> None:
    source = write_model("gemma3", tmp_path / "model")
    tensors = load_file(source / "model.safetensors")
    save_file({**tensors, "lm_head.weight": tensors["model.embed_tokens.weight"].clone()}, source / "model.safetensors")
    model = open_model(source)
    quantized = wb.quantize_model(model, RTN)
    assert "head" not in quantized.unquantized
    assert load(save(quantized, tmp_path / "out", model)).coverage == quantized.coverage
