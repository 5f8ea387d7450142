"""Models in GGUF files: equal to the module that they were written from, counted as stored, and damaged ones in one sentence."""

import gc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tests.gguf_files import random_blocks, tiny, write_gguf
from workbench.analysis.decisions.headline import count_stored
from workbench.analysis.decisions.stops import choose_stops
from workbench.errors import ModelError
from workbench.exchange.reading import gguf_types
from workbench.exchange.reading.gguf_file import read_gguf
from workbench.models import ModelHandle, open_model
from workbench.models.gguf_config import build_config

gguf = pytest.importorskip("gguf", reason="the library gguf is not installed; it comes with the extra 'exchange'")

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2", "mixtral", "qwen2moe", "qwen3moe")
QUANTIZED = sorted(kind.name for kind in gguf.quants._type_traits if kind.name != "BF16")
IDS = torch.arange(3, 60)[None]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tiny("llama"), tmp_path_factory.mktemp("gguf") / "llama.gguf", "Q8_0")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_is_the_module_that_it_was_written_from(family: str, tmp_path: Path) -> None:
    module = tiny(family)
    model = open_model(write_gguf(module, tmp_path / "model.gguf"))
    with torch.no_grad():
        assert_close(model.run(IDS).logits, module(IDS).logits)
    for name in model.layer_names:
        assert_close(model.weight(name), model.layer(name).orient(find_weight(module, name)), rtol=0, atol=0)


def find_weight(module: torch.nn.Module, name: str) -> torch.Tensor:
    """A layer's weight, or one of a stack of experts."""
    path, _, leaf = name.rpartition(".")
    return module.get_parameter(path).data[int(leaf)] if leaf.isdigit() else module.get_parameter(f"{name}.weight").data


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4},
        {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 32},
        {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 5e5,
            "original_max_position_embeddings": 8192,
        },
    ],
    ids=lambda rope: rope["rope_type"],
)  # fmt: skip
def test_scaled_frequencies_are_those_of_the_module(rope: dict[str, float], tmp_path: Path) -> None:
    module = tiny("llama", rope_parameters=rope)
    keys = {"factor": "rope.scaling.factor", "rope_type": "rope.scaling.type"}
    facts = {} if rope["rope_type"] == "llama3" else {new: rope[name] for name, new in keys.items()}
    if rope["rope_type"] == "yarn":
        facts["rope.scaling.original_context_length"] = 32
    model = open_model(write_gguf(module, tmp_path / "model.gguf", **facts))
    with torch.no_grad():
        assert_close(model.run(IDS).logits, module(IDS).logits)


def test_frequencies_of_an_unknown_kind_are_refused(tmp_path: Path) -> None:
    path = write_gguf(tiny("llama"), tmp_path / "model.gguf", **{"rope.scaling.type": "odd", "rope.scaling.factor": 2.0})
    with pytest.raises(ModelError, match="scales its rotary frequencies by 'odd', which is not read from GGUF"):
        open_model(path)


@pytest.mark.parametrize("kind", QUANTIZED)
def test_a_type_is_what_the_library_decodes(kind: str) -> None:
    number = gguf.GGMLQuantizationType[kind]
    blocks = random_blocks(number, (3, 512))
    expected = torch.from_numpy(gguf.quants.dequantize(blocks, number))
    decoded = gguf_types.decode(torch.from_numpy(blocks).reshape(-1), number, (3, 512))
    assert_close(decoded, expected, rtol=0, atol=0, equal_nan=True)
    assert gguf_types.count_bytes(number, (3, 512), kind) == blocks.nbytes


def test_one_bit_types_are_decoded_here(tmp_path: Path) -> None:
    scale = np.array([0.5, -2.0], np.float16).view(np.uint8).reshape(2, 2)
    bits = np.zeros((2, 16), np.uint8)
    bits[0, 0], bits[1, 15] = 0b101, 0b1000_0000
    expected = torch.tensor([[-0.5], [2.0]]).repeat(1, 128)
    expected[0, [0, 2]], expected[1, 127] = 0.5, -2.0
    stored = torch.from_numpy(np.concatenate([scale, bits], 1)).reshape(-1)
    assert_close(gguf_types.decode(stored, 41, (1, 256)), expected.view(1, 256), rtol=0, atol=0)


def test_a_file_is_opened_by_its_folder_too(llama: Path) -> None:
    assert open_model(llama.parent).fingerprint == open_model(llama).fingerprint


def test_the_tokenizer_is_that_of_the_metadata(llama: Path, builtin: ModelHandle) -> None:
    text = "Once upon a time, there was a café. 3 + 4"
    model = open_model(str(llama))
    assert model.encode(text).tolist() == builtin.encode(text).tolist()
    assert isinstance(model.generate("Once", tokens=2), str)


def test_without_a_vocabulary_it_has_layers_but_reads_no_text(tmp_path: Path) -> None:
    model = open_model(write_gguf(tiny("llama"), tmp_path / "model.gguf", tokenizer=False))
    assert len(model.layer_names) == 14
    with pytest.raises(ModelError, match="has layers, but reads no text: .*it holds no vocabulary"):
        model.generate("Once")


def test_bits_are_those_of_the_file(llama: Path) -> None:
    stored = count_stored(open_model(llama), None)
    assert (stored.bits_per_weight, stored.bytes, stored.stored_as) == (8.5, llama.stat().st_size, "Q8_0")


@pytest.mark.parametrize(("kind", "first"), [("Q8_0", 8), ("Q4_0", 4)])
def test_it_is_squeezed_to_fewer_bits_than_it_stores(tmp_path: Path, kind: str, first: float) -> None:
    model = open_model(write_gguf(tiny("llama"), tmp_path / "m.gguf", choose=lambda name: kind))
    original, smaller, *_ = choose_stops(model)
    assert original.is_original
    assert smaller.bits == first


def test_types_may_differ_from_layer_to_layer(tmp_path: Path) -> None:
    path = write_gguf(tiny("llama"), tmp_path / "m.gguf", choose=lambda name: "Q8_0" if "down" in name else "Q4_0")
    table = open_model(path).layers().set_index("matrix")
    assert set(table.loc["mlp.down_proj", "dtype"]) == {"Q8_0"}
    assert set(table.loc["mlp.up_proj", "stored_bits"]) == {4.5}


def test_its_documents_leave_with_it(llama: Path) -> None:
    model = open_model(llama)
    folder = model.folder
    assert (folder / "config.json").is_file()
    del model
    gc.collect()
    assert not folder.exists()


def test_a_streamed_model_is_the_same(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = open_model(llama).run(IDS).logits
    monkeypatch.setenv("WORKBENCH_STREAM", "always")
    model = open_model(llama)
    assert_close(model.run(IDS).logits, expected)
    assert all(parameter.is_meta for parameter in model.module.get_submodule("model.layers.0").parameters())


BAD = {
    "magic": (lambda b: b"GGML" + b[4:], "no GGUF file|is a file; give the folder"),
    "version": (lambda b: b[:4] + b"\x07\0\0\0" + b[8:], "is GGUF version 7; this workbench reads versions 2 and 3"),
    "endian": (lambda b: b[:4] + b"\0\0\0\x03" + b[8:], "is a GGUF file for big-endian machines"),
    "header": (lambda b: b[:100], "damaged or incomplete"),
    "tensors": (lambda b: b[:-1000], "bytes of its tensor 'output_norm.weight' are missing|bytes of its tensor .* are missing"),
    "count": (lambda b: b[:8] + b"\xff" * 8 + b[16:], "its header announces 18,446,744,073,709,551,615 items"),
    "nothing": (lambda b: b[:4], "damaged or incomplete"),
    "unknown type": (lambda b: b.replace(b"blk.0.attn_q.weight\x02\0\0\0" + bytes([0, 1, 0, 0, 0, 0, 0, 0]) * 2 + b"\x08",
                     b"blk.0.attn_q.weight\x02\0\0\0" + bytes([0, 1, 0, 0, 0, 0, 0, 0]) * 2 + b"\xc8"),
                     "attn_q.weight' is of the type 200, which the installed gguf does not know"),
    "architecture": (lambda b: b.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0larma"), "architecture 'larma'"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "sentence"), BAD.values(), ids=BAD.keys())
def test_a_damaged_file_is_one_sentence(llama: Path, tmp_path: Path, damage: object, sentence: str) -> None:
    content = llama.read_bytes()
    path = tmp_path / "bad.gguf"
    path.write_bytes(damage(content))  # type: ignore[operator]
    assert path.read_bytes() != content
    with pytest.raises(ModelError, match=sentence) as caught:
        open_model(path)
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 12000), bit=st.integers(0, 7), end=st.integers(0, 20000))
def test_any_bit_and_any_end_of_a_header_is_read_or_one_sentence(
    llama: Path, tmp_path: Path, place: int, bit: int, end: int
) -> None:
    content = bytearray(llama.read_bytes())
    content[place] ^= 1 << bit
    for damaged in (bytes(content), bytes(content[:end])):
        path = tmp_path / "bad.gguf"
        path.write_bytes(damaged)
        try:
            build_config(read_gguf(path))
        except ModelError as error:
            assert "\n" not in str(error)  # noqa: PT017  either outcome is right
        else:
            assert len(damaged) == len(content)


@pytest.mark.parametrize(("field", "value", "sentence"), [
    ("block_count", 3, "says that it has 3 blocks, but holds 2"),
    ("embedding_length", 128, r"has a token embedding of \[512, 256\], but says embedding_length 128"),
    ("expert_count", 8, "lacks llama.expert_used_count in its metadata"),
    ("feed_forward_length", 640, r"stores 'model.layers.0.mlp.gate_proj.weight' as \[512, 256\], but"),
    ("attention.head_count", 0, "cannot be opened|head"),
])  # fmt: skip
def test_metadata_that_contradicts_the_tensors_is_refused(tmp_path: Path, field: str, value: int, sentence: str) -> None:
    path = write_gguf(tiny("llama"), tmp_path / "model.gguf", tokenizer=False, **{field: value})
    with pytest.raises(ModelError, match=sentence):
        open_model(path)


def test_infinite_scales_are_no_weights(tmp_path: Path) -> None:
    path = write_gguf(tiny("llama"), tmp_path / "model.gguf", "Q8_0")
    file = read_gguf(path)
    with path.open("r+b") as stream:
        stream.seek(file.tensors["blk.0.attn_q.weight"].offset)
        stream.write(b"\x00\x7c")
    with pytest.raises(ModelError, match="holds 32 of 65536 values that are NaN or infinite"):
        open_model(path).weight("model.layers.0.self_attn.q_proj")


def test_quantized_experts_are_read_one_by_one(tmp_path: Path) -> None:
    path = write_gguf(tiny("mixtral"), tmp_path / "m.gguf", choose=lambda name: "Q4_0" if "ffn_up_exps" in name else "Q8_0")
    model, file = open_model(path), read_gguf(path)
    name = "model.layers.1.mlp.experts.gate_up_proj.3"
    parts = [file.read(f"blk.1.{part}.weight")[3] for part in ("ffn_gate_exps", "ffn_up_exps")]
    assert_close(model.weight(name), torch.cat(parts), rtol=0, atol=0)
    table = model.layers().set_index("name")
    assert (table["dtype"][name], table["stored_bits"][name]) == ("Q8_0 + Q4_0", 6.5)
    assert count_stored(model, None).bytes == path.stat().st_size


def test_a_mixture_of_another_architecture_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tiny("qwen3"), tmp_path / "model.gguf", expert_count=8)
    with pytest.raises(ModelError, match="is a mixture of experts of architecture 'qwen3'; mixtures are read of llama, qwen2moe"):
        open_model(path)


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("parts")
    write_gguf(tiny("llama"), folder / "model.gguf", "Q8_0", split=9)
    return sorted(folder.iterdir())


def test_a_model_in_several_files_is_opened_by_any_of_them(parts: list[Path], llama: Path) -> None:
    assert [part.name for part in parts] == [f"model-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    whole = open_model(llama)
    for source in (parts[0], parts[2], parts[0].parent):
        model = open_model(source)
        assert model.layer_names == whole.layer_names
        for name in (model.layer_names[0], model.layer_names[-1]):
            assert_close(model.weight(name), whole.weight(name), rtol=0, atol=0)
    assert_close(model.run(IDS).logits, whole.run(IDS).logits)
    assert model.stored_bytes == sum(part.stat().st_size for part in parts)
    assert isinstance(model.generate("Once", tokens=2), str)


def test_parts_that_are_not_complete_are_one_sentence(parts: list[Path], tmp_path: Path) -> None:
    for part in parts[:2]:
        (tmp_path / part.name).write_bytes(part.read_bytes())
    with pytest.raises(ModelError, match="one of 3 files of a model, of which model-00003-of-00003.gguf is missing"):
        open_model(tmp_path)
    (tmp_path / "model-00003-of-00003.gguf").write_bytes(parts[1].read_bytes())
    with pytest.raises(ModelError, match=r"says that it is part 1 \(from 0\) of 3, but is named as part 2 of 3"):
        open_model(tmp_path)
    other = tmp_path / "renamed" / "other.gguf"
    other.parent.mkdir()
    other.write_bytes(parts[0].read_bytes())
    with pytest.raises(ModelError, match="is one of 3 files of a model, which are found by their names"):
        open_model(other)


def test_a_file_without_an_architecture_is_no_model(llama: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(llama.read_bytes().replace(b"general.architecture", b"general.architecturx"))
    with pytest.raises(ModelError, match="names no architecture"):
        open_model(path)


def test_a_missing_library_is_one_sentence(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(ModelError, match=r"needs the library gguf, .*; run: pip install 'quantization-workbench\[exchange\]'"):
        open_model(llama)
