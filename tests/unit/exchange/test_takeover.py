"""Codes of other programs taken over: the same weights bit for bit, packed, saved and run; what cannot be is named."""

import shutil
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import workbench as wb
from tests.coded_checkpoints import METHODS, write_coded
from tests.gguf_files import tiny, write_gguf
from tests.tiny_models import write_model
from workbench.errors import ModelError
from workbench.models import ModelHandle

pytestmark = pytest.mark.filterwarnings("ignore:.* also rounds the inputs:workbench.errors.WorkbenchWarning")
IDS = torch.arange(3, 40)[None]
QUERY = "model.layers.0.self_attn.q_proj"
FORMATS = {
    **dict.fromkeys(("gptq-2", "gptq-3", "gptq-4", "gptq-8", "gptq-v2", "awq"), "uniform"),
    **dict.fromkeys(("packed-3", "packed-4", "packed-8", "packed-zeros"), "uniform"),
}
LEFT = {
    "gptq-order": r"its groups are columns in an order of their own \(desc_act\)",
    "nf4": "its values are on no regular grid",
    "hqq-4": "its values are on no regular grid",
    "fp8-blocks": "its values are on no regular grid",
    "bitnet": "its scales are not 16-bit floats",  # 1 / 24
}
LEFT_GGUF = {"Q4_1": "Q4_1 is on no grid with a 16-bit scale a group", "Q4_K": "Q4_K is on no grid", "F16": "it is not quantized"}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model("llama", tmp_path_factory.mktemp("plain"))


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "model"))


def check_equal(model: ModelHandle, packed: wb.quantized.QuantizedModel, form: str) -> None:  # type: ignore[name-defined]
    """Every layer is there, in this format, with the weights of the model."""
    assert set(packed.layers) == set(model.layer_names)
    assert packed.calibration["left"] == {}
    for name, layer in packed.layers.items():
        assert layer.packed.format == form
        assert_close(layer.weight(), model.weight(name), rtol=0, atol=0)


@pytest.mark.parametrize(("method", "form"), FORMATS.items())
def test_checkpoints_are_taken_over_bit_for_bit(folder: Path, method: str, form: str) -> None:
    write_coded(folder, METHODS[method])
    model = wb.open_model(folder)
    packed = wb.take_over(model)
    check_equal(model, packed, form)
    assert packed.layers[QUERY].edits == (f"codes taken over from {model.layer(QUERY).dtype}",)


@pytest.mark.parametrize("kind", ["Q4_0", "Q8_0", "TQ1_0", "TQ2_0", "Q1_0"])
def test_gguf_types_are_taken_over_bit_for_bit(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the library gguf is not installed; it comes with the extra 'exchange'")
    model = wb.open_model(write_gguf(tiny("llama"), tmp_path / "model.gguf", kind, tokenizer=False))
    packed = wb.take_over(model)
    check_equal(model, packed, {"Q": "uniform", "T": "ternary"}[kind[0]] if kind != "Q1_0" else "planes")
    stored = {"Q4_0": 4.5, "Q8_0": 8.5, "TQ1_0": 1.6 + 1 / 16, "TQ2_0": 1.6 + 1 / 16, "Q1_0": 1.125}[kind]
    assert packed.bits_per_weight == pytest.approx(stored, abs=1e-3)


@pytest.mark.parametrize(("method", "reason"), LEFT.items())
def test_what_has_no_counterpart_is_named(folder: Path, method: str, reason: str) -> None:
    write_coded(folder, METHODS[method])
    with pytest.raises(ModelError, match=rf"no layer of .* can be taken over; {QUERY}: {reason}"):
        wb.take_over(wb.open_model(folder))


@pytest.mark.parametrize(("kind", "reason"), LEFT_GGUF.items())
def test_gguf_types_without_a_counterpart_are_named(kind: str, reason: str, tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the library gguf is not installed; it comes with the extra 'exchange'")
    path = write_gguf(tiny("llama"), tmp_path / "m.gguf", choose=lambda name: kind if "up" in name else "Q4_0", tokenizer=False)
    packed = wb.take_over(wb.open_model(path))
    assert len(packed.layers) == 12
    assert all(text.startswith(reason) for text in packed.calibration["left"].values())
    assert set(packed.calibration["left"]) == {f"model.layers.{block}.mlp.up_proj" for block in (0, 1)}


def test_matrices_that_transformers_stores_transposed_are_taken_over(tmp_path: Path) -> None:
    pytest.importorskip("gguf", reason="the library gguf is not installed; it comes with the extra 'exchange'")
    model = wb.open_model(write_gguf(tiny("gpt2"), tmp_path / "model.gguf", "Q8_0", tokenizer=False))
    packed = wb.take_over(model)
    check_equal(model, packed, "uniform")


def test_it_is_saved_loaded_and_run(folder: Path, tmp_path: Path) -> None:
    write_coded(folder, METHODS["packed-zeros"])
    model = wb.open_model(folder)
    saved = wb.load(wb.save(wb.take_over(model), tmp_path / "saved", model))
    assert_close(saved.module(IDS).logits, model.run(IDS).logits, rtol=1e-3, atol=5e-3)
    assert saved.quantized.layers[QUERY].edits == ("codes taken over from INT4",)


def test_a_bitnet_scale_of_16_bits_is_taken_over(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    write_coded(folder, METHODS["bitnet"])
    tensors = load_file(folder / "model.safetensors")
    halves = {name: torch.tensor([32.0]) for name in tensors if name.endswith("weight_scale")}
    save_file(tensors | halves, folder / "model.safetensors", metadata={"format": "pt"})
    model = wb.open_model(folder)
    check_equal(model, wb.take_over(model), "ternary")
