"""Checkpoints that other programs quantized: decoded to the values that they stand for, counted as stored, or refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.testing import assert_close

from tests.coded_checkpoints import METHODS, write_coded
from tests.tiny_models import write_model
from workbench.analysis.decisions.headline import count_stored
from workbench.errors import ModelError, WorkbenchWarning
from workbench.exchange.reading.methods import describe_rounded_inputs
from workbench.models import open_model

pytestmark = pytest.mark.filterwarnings("ignore:.* also rounds the inputs:workbench.errors.WorkbenchWarning")
IDS = torch.arange(3, 40)[None]
QUERY = "model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model("llama", tmp_path_factory.mktemp("plain"))


@pytest.fixture
def folder(plain: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(plain, tmp_path / "model"))


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_weights_are_what_the_codes_stand_for(folder: Path, method: object) -> None:
    expected = write_coded(folder, method)  # type: ignore[arg-type]
    model = open_model(folder)
    assert set(expected) == {f"{name}.weight" for name in model.layer_names}
    for name in model.layer_names:
        assert_close(model.weight(name), expected[f"{name}.weight"], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["gptq-order", "nf4", "bitnet"])
def test_it_runs_as_the_plain_model_of_these_weights(folder: Path, name: str, tmp_path: Path) -> None:
    plain = Path(shutil.copytree(folder, tmp_path / "plain"))
    expected = write_coded(folder, METHODS[name])
    save_file(load_file(plain / "model.safetensors") | expected, plain / "model.safetensors", metadata={"format": "pt"})
    assert_close(open_model(folder).run(IDS).logits, open_model(plain).run(IDS).logits, rtol=0, atol=0)


def test_a_streamed_model_is_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coded(folder, METHODS["awq"])
    expected = open_model(folder).run(IDS).logits
    monkeypatch.setenv("WORKBENCH_STREAM", "always")
    assert_close(open_model(folder).run(IDS).logits, expected)


def test_a_tensor_is_read_without_the_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.models.checkpoint import Checkpoint

    write_coded(folder, METHODS["gptq-4"])
    model, names, read = open_model(folder), [], Checkpoint.read
    monkeypatch.setattr(Checkpoint, "read", lambda self, name: names.append(name) or read(self, name))
    model.weight(QUERY)
    assert sorted(names) == [f"{QUERY}.{leaf}" for leaf in ("g_idx", "qweight", "qzeros", "scales")]


def test_bits_are_those_of_all_that_is_stored(folder: Path) -> None:
    write_coded(folder, METHODS["gptq-4"])
    layer = open_model(folder).layer(QUERY)
    codes, groups = 64 * 64 * 4, 64 * 64 // 32 * (16 + 4)
    assert (layer.dtype, layer.bits) == ("GPTQ 4 bits", (codes + groups + 64 * 32) / (64 * 64))
    assert 4.5 < count_stored(open_model(folder), None).bits_per_weight < 6


def edit(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of a checkpoint."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("method", METHODS)
def test_any_missing_part_is_named(folder: Path, method: str) -> None:
    write_coded(folder, METHODS[method])
    parts = [name.removeprefix(f"{QUERY}.") for name in load_file(folder / "model.safetensors") if name.startswith(QUERY)]
    facts = {"g_idx", "group_size", "weight_format", "weight_zero_point"}  # without them it is another, complete checkpoint
    for leaf in set(parts) - facts:
        broken = Path(shutil.copytree(folder, folder.parent / leaf))
        edit(broken, lambda tensors, leaf=leaf: tensors.pop(f"{QUERY}.{leaf}"))
        with pytest.raises(ModelError, match=r"q_proj|nested") as caught:
            open_model(broken)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", METHODS)
def test_any_part_of_another_shape_is_refused(folder: Path, method: str) -> None:
    write_coded(folder, METHODS[method])
    tensors = load_file(folder / "model.safetensors")
    scalars = {"group_size", "weight_format", "nbits", "axis", "weight.quant_state.bitsandbytes__nf4"}
    for leaf in {name.removeprefix(f"{QUERY}.") for name in tensors if name.startswith(QUERY)} - scalars:
        wrong = tensors | {f"{QUERY}.{leaf}": tensors[f"{QUERY}.{leaf}"].repeat_interleave(3, 0)[:-1].contiguous()}
        save_file(wrong, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match="q_proj") as caught:
            open_model(folder).weight(QUERY)
        assert "\n" not in str(caught.value)


BAD_SETTINGS = {
    "no-bits": ("gptq-4", {"bits": None}, r"says bits None; it must be 2 or 3 or 4 or 8"),
    "marlin": ("gptq-4", {"checkpoint_format": "marlin"}, r"is GPTQ in the layout 'marlin'; the layouts gptq and gptq_v2"),
    "dynamic": ("gptq-4", {"dynamic": {"a": 1}}, r"settings of their own for some layers \(dynamic\)"),
    "gemv": ("awq", {"version": "gemv"}, r"is AWQ in the layout 'gemv'; the layout gemm is read"),
    "other": ("awq", {"quant_method": "quip"}, r"is already quantized \('quip'\), and what can be read is awq, bitnet, .*: open"),
    "unnamed": ("awq", {"quant_method": None, "version": None}, r"is already quantized \(an unnamed method\)"),
    "groups": ("packed-4", {"config_groups": {}}, r"without config_groups"),
    "format": ("packed-4", {"format": "marlin-24"}, r"says format 'marlin-24'.*; the formats read are pack-quantized"),
    "rotated": ("packed-4", {"transform_config": {"config_groups": {"a": {}}}}, r"has a transform_config, which changes what"),
    "norm": ("bitnet", {"use_rms_norm": True}, r"a norm inside each layer"),
}  # fmt: skip


@pytest.mark.parametrize(("method", "change", "sentence"), BAD_SETTINGS.values(), ids=BAD_SETTINGS)
def test_settings_that_are_not_read_are_refused(folder: Path, method: str, change: dict[str, object], sentence: str) -> None:
    write_coded(folder, METHODS[method])
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=sentence):
        open_model(folder)


@pytest.mark.parametrize("method", ["fp8-rows", "bitnet", "int8"])
def test_rounding_of_inputs_is_said(folder: Path, method: str) -> None:
    write_coded(folder, METHODS[method])
    with pytest.warns(WorkbenchWarning, match="also rounds the inputs of its layers to 8-bit (floats|integers) as it runs"):
        open_model(folder)


def test_only_methods_that_round_inputs_say_so() -> None:
    weights = {"num_bits": 8, "type": "int"}
    for inputs, said in (({"num_bits": 8, "type": "int"}, "8-bit integers"), ({"num_bits": 4, "type": "float"}, "4-bit floats")):
        groups = {"a": {"weights": weights, "input_activations": None}, "b": {"weights": weights, "input_activations": inputs}}
        assert describe_rounded_inputs({"quant_method": "compressed-tensors", "config_groups": groups}) == said
    groups = {"a": {"weights": weights, "input_activations": None}}
    assert describe_rounded_inputs({"quant_method": "compressed-tensors", "config_groups": groups}) == ""
    assert [describe_rounded_inputs({"quant_method": name}) for name in ("gptq", "awq", "mxfp4", "hqq")] == [""] * 4
    assert describe_rounded_inputs({"load_in_4bit": True}) == ""


def test_a_column_of_no_group_is_refused(folder: Path) -> None:
    write_coded(folder, METHODS["gptq-order"])
    edit(folder, lambda tensors: tensors[f"{QUERY}.g_idx"].fill_(7))
    with pytest.raises(ModelError, match=r"q_proj.weight' cannot be decoded as GPTQ 4 bits"):
        open_model(folder).weight(QUERY)


def test_infinite_scales_are_no_weights(folder: Path) -> None:
    write_coded(folder, METHODS["awq"])
    edit(folder, lambda tensors: tensors[f"{QUERY}.scales"].fill_(torch.inf))
    with pytest.raises(ModelError, match=r"q_proj' of .* holds 4\d* of 4096 values that are NaN or infinite"):
        open_model(folder).weight(QUERY)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["gptq-3", "nf4", "hqq-4", "packed-4"]), st.floats(0, 1), st.integers(0, 7))
def test_any_flipped_bit_is_read_or_one_sentence(folder: Path, method: str, where: float, bit: int) -> None:
    source = folder.parent / method
    if not source.exists():
        shutil.copytree(folder, source)
        write_coded(source, METHODS[method])
    broken = folder.parent / "broken"
    shutil.copytree(source, broken, dirs_exist_ok=True)
    content = bytearray((source / "model.safetensors").read_bytes())
    content[int(where * (len(content) - 1))] ^= 1 << bit
    (broken / "model.safetensors").write_bytes(content)
    try:
        model = open_model(broken)
        for name in model.layer_names:
            model.weight(name)
    except ModelError as error:
        assert "\n" not in str(error)  # noqa: PT017  either outcome is right
