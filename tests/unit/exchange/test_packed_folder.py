"""Packed folders: GPTQ decoded number by number as its format is described, compressed-tensors by its own library."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import workbench as wb
from workbench.errors import ArtifactError
from workbench.exchange.writing.grid_codes import GridCodes
from workbench.exchange.writing.model_folder import plan_dequantized
from workbench.exchange.writing.packed_folder import IntegerLayer, Scheme, fit_grid, pack_rows
from workbench.exchange.writing.source import open_source
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.models.handle import ModelHandle
from workbench.presets import parse

needs_library = pytest.mark.skipif(
    find_spec("compressed_tensors") is None, reason="compressed-tensors is not installed; it comes with the extra 'exchange'"
)
IDS = torch.arange(3, 35)[None]
LAYER = "model.layers.0.mlp.down_proj"
EXACT = {
    "rtn:bits=4,group=32,symmetric=yes": (4, 4, True),  # bits in compressed-tensors and in GPTQ, and whether it is symmetric
    "rtn:bits=4,group=128": (4, 4, False),
    "rtn:bits=3,group=64": (3, 3, False),
    "rtn:bits=2,group=0": (2, 2, False),
    "rtn:bits=5,group=64,symmetric=yes": (5, 8, True),
    "rtn:bits=8": (8, 8, False),
    "rtn:bits=1,group=0": (2, 2, False),
    "ternary:group=64": (2, 2, True),
    "binary:group=0,mean=no": (2, 2, True),
}


def save(model: ModelHandle, folder: Path, recipe: wb.Recipe, layers: str = "*.0.mlp.*") -> Path:
    """A saved quantized model."""
    small = wb.quantize_model(model, recipe, layers=layers, text=wb.text("calibration"), tokens=256)
    return wb.save(small, folder, model)


def read_config(folder: Path) -> dict[str, Any]:
    """How a written folder says that it is quantized."""
    return json.loads((folder / "config.json").read_text())["quantization_config"]


def read_code(words: list[int], index: int, bits: int) -> int:
    """Code number `index` of a stream of bits in words of 32, the lowest first."""
    stream = sum((word & 0xFFFFFFFF) << 32 * number for number, word in enumerate(words))
    return stream >> bits * index & ((1 << bits) - 1)


def decode_gptq(tensors: dict[str, Tensor], layer: str, config: dict[str, Any], outputs: int) -> Tensor:
    """The first `outputs` rows of a layer, one weight at a time."""
    qweight, qzeros, scales, g_idx = (tensors[f"{layer}.{name}"] for name in ("qweight", "qzeros", "scales", "g_idx"))
    bits, plus = config["bits"], 1 if config["checkpoint_format"] == "gptq" else 0
    rows = []
    for row in range(outputs):
        column, row_words = [], qweight[:, row].tolist()
        for index, group in enumerate(g_idx.tolist()):
            block, within = divmod(index, 32)
            code = read_code(row_words[block * bits : (block + 1) * bits], within, bits)
            zero_words = qzeros[group].tolist()[row // 32 * bits : (row // 32 + 1) * bits]
            column.append(float(scales[group, row]) * (code - read_code(zero_words, row % 32, bits) - plus))
        rows.append(column)
    return torch.tensor(rows)


@pytest.mark.parametrize("recipe", EXACT)
def test_gptq_holds_the_same_weights(builtin: ModelHandle, tmp_path: Path, recipe: str) -> None:
    saved = save(builtin, tmp_path / "small", parse(recipe), LAYER)
    written = wb.export(saved, tmp_path / "packed", to="gptq", strict=True)
    config, expected = read_config(tmp_path / "packed"), wb.load(saved).weight(LAYER)
    assert (config["bits"], config["sym"]) == EXACT[recipe][1:]
    decoded = decode_gptq(load_file(tmp_path / "packed/model.safetensors"), LAYER, config, 3)
    torch.testing.assert_close(decoded, expected[:3], atol=1e-6, rtol=0)
    assert not written.losses
    assert config["dynamic"][r"-:^model\.layers\.1\.mlp\.down_proj$"] == {}
    assert not any(re.match(key[2:], LAYER) for key in config["dynamic"])


def test_gptq_with_columns_out_of_order(builtin: ModelHandle, tmp_path: Path) -> None:
    saved = save(builtin, tmp_path / "small", parse("gptq:bits=4,act_order=yes"), LAYER)
    wb.export(saved, tmp_path / "packed", to="gptq", strict=True)
    tensors, config = load_file(tmp_path / "packed/model.safetensors"), read_config(tmp_path / "packed")
    assert config["desc_act"]
    assert not bool((tensors[f"{LAYER}.g_idx"].diff() >= 0).all())
    torch.testing.assert_close(decode_gptq(tensors, LAYER, config, 3), wb.load(saved).weight(LAYER)[:3], atol=1e-6, rtol=0)


@pytest.mark.parametrize(("zero", "checkpoint_format", "stored"), [(0, "gptq_v2", 0), (3, "gptq", 2)])
def test_a_zero_of_0_needs_the_second_version(
    builtin: ModelHandle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zero: int, checkpoint_format: str, stored: int
) -> None:
    saved = save(builtin, tmp_path / "small", parse("rtn:bits=4"), LAYER)
    monkeypatch.setattr(IntegerLayer, "zeros", lambda layer: torch.full_like(layer.grid.zero, zero))
    wb.export(saved, tmp_path / "packed", to="gptq")
    assert read_config(tmp_path / "packed")["checkpoint_format"] == checkpoint_format
    assert read_code(load_file(tmp_path / "packed/model.safetensors")[f"{LAYER}.qzeros"][0].tolist(), 0, 4) == stored


def test_golden_words() -> None:
    """Codes that count up from 0: eight of four bits to a word, 32 of three bits to three words."""
    assert pack_rows(torch.arange(8)[None], 4).tolist() == [[0x76543210]]
    words = pack_rows(torch.arange(32)[None] % 8, 3)[0].tolist()
    assert [word & 0xFFFFFFFF for word in words] == [0x88FAC688, 0xC688FAC6, 0xFAC688FA]


def test_layers_of_other_schemes_are_named(builtin: ModelHandle, tmp_path: Path) -> None:
    plan = wb.LayerPlan((("*.0.mlp.*", parse("rtn:bits=4")), ("*.1.mlp.up_proj", parse("rtn:bits=2"))))
    saved = wb.save(wb.quantize_model(builtin, plan), tmp_path / "small", builtin)
    wb.export(saved, tmp_path / "gptq", to="gptq")
    dynamic = read_config(tmp_path / "gptq")["dynamic"]
    assert dynamic[r"+:^model\.layers\.1\.mlp\.up_proj$"] == {"bits": 2, "group_size": 128, "sym": False, "desc_act": False}
    assert len(dynamic) == 42 - 3
    wb.export(saved, tmp_path / "ct", to="compressed-tensors")
    groups = read_config(tmp_path / "ct")["config_groups"]
    assert groups["group_1"]["targets"] == ["model.layers.1.mlp.up_proj"]
    assert [group["weights"]["num_bits"] for group in groups.values()] == [4, 2]


@needs_library
@pytest.mark.parametrize("recipe", EXACT)
def test_compressed_tensors_reads_the_same_weights(builtin: ModelHandle, tmp_path: Path, recipe: str) -> None:
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationConfig

    saved = save(builtin, tmp_path / "small", parse(recipe))
    wb.export(saved, tmp_path / "packed", to="compressed-tensors", strict=True)
    config = QuantizationConfig.model_validate(read_config(tmp_path / "packed"))
    scheme = config.config_groups["group_0"]
    assert (scheme.weights.num_bits, scheme.weights.symmetric) == EXACT[recipe][::2]
    compressor = BaseCompressor.load_from_registry("pack-quantized")
    packed, tensors = wb.load(saved), load_file(tmp_path / "packed/model.safetensors")
    for name in packed.layer_names:
        state = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        weight = compressor.decompress(state, scheme)["weight"]
        assert torch.equal(weight, packed.weight(name).half())  # the library multiplies in the type of the scales


@needs_library
def test_transformers_runs_compressed_tensors(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """Symmetric layers: transformers 5.24 refuses zeros that compressed-tensors 0.20 has packed."""
    from transformers import AutoModelForCausalLM

    model = wb.open_model(tiny_models["llama"])
    plan = wb.LayerPlan(
        (("*.0.*", parse("rtn:bits=4,group=32,symmetric=yes")), ("*", parse("rtn:bits=3,group=64,symmetric=yes")))
    )
    saved = wb.save(wb.quantize_model(model, plan), tmp_path / "small", model)
    wb.export(saved, tmp_path / "packed", to="compressed-tensors")
    with torch.inference_mode():
        logits = AutoModelForCausalLM.from_pretrained(tmp_path / "packed")(IDS).logits.float()
    expected = wb.load(saved).logits(IDS)
    torch.testing.assert_close(logits, expected, atol=0.01 * float(expected.std()), rtol=0)


@pytest.mark.parametrize("engine", ["compressed-tensors", "gptq"])
def test_what_cannot_be_held_is_told_or_refused(builtin: ModelHandle, tmp_path: Path, engine: Any) -> None:
    saved = save(builtin, tmp_path / "small", parse("rtn:bits=4,zero=real"), "*.0.mlp.*")
    reason = "dequantized to F16, because what stands for 0 among its codes is no whole number"
    with pytest.raises(ArtifactError, match=f"3 of 3 quantized layers cannot be held exactly: 3 would be {reason}"):
        wb.export(saved, tmp_path / "packed", to=engine, strict=True)
    written = wb.export(saved, tmp_path / "packed", to=engine)
    assert {loss: len(names) for loss, names in written.losses.items()} == {reason: 3}
    weight = load_file(tmp_path / "packed/model.safetensors")[f"{LAYER}.weight"]
    assert torch.equal(weight, wb.load(saved).weight(LAYER).half())


def test_an_embedding_is_not_packed(builtin: ModelHandle, tmp_path: Path) -> None:
    saved = save(builtin, tmp_path / "small", parse("rtn:bits=4"), "*.embed_tokens")
    written = wb.export(saved, tmp_path / "packed", to="gptq")
    assert list(written.losses) == ["dequantized to F16, because it is no nn.Linear but Embedding"]


def test_sizes_that_fill_no_words() -> None:
    codes, scale = bitpack.pack(torch.zeros(8, 40, dtype=torch.uint8), 2), torch.ones(8, 2).half()
    grid = GridCodes(Packed("uniform", 8, 40, {"codes": codes, "scale": scale}, {"bits": 2, "span": 32}))
    assert fit_grid(grid, "gptq") == "8 × 40 codes of 2 bits in groups of 32 do not fill words of 32 bits and whole groups"
    assert Scheme(2, 0, symmetric=True, ordered=False).group == 0


def test_numbers_too_large_for_float16_are_refused(tiny_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source(tiny_models["llama"])
    monkeypatch.setattr(type(source), "tensor", lambda *_: torch.tensor([1.0, 70_000.0]))
    with pytest.raises(ArtifactError, match="has 1 weights that are too large for F16; export to hf or gguf instead"):
        plan_dequantized(source, "model.norm.weight", dtype=torch.float16)
