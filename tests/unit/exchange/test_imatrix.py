"""Importance matrices of llama.cpp: both forms give the same diagonal, which weighs what needs no correlations, and no more."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

import workbench as wb
from workbench.errors import ModelError, RecipeError
from workbench.exchange.reading.imatrix import read_imatrix_file
from workbench.models import ModelHandle

CHUNKS, TOKENS = 5, 1000
DOWN = "model.layers.1.mlp.down_proj"


def draw(builtin: ModelHandle) -> dict[str, np.ndarray]:
    """Mean squares for some layers of the built-in model, by llama.cpp's names."""
    rng = np.random.default_rng(0)
    names = {"attn_q": "self_attn.q_proj", "ffn_down": "mlp.down_proj", "ffn_up": "mlp.up_proj"}
    return {
        f"blk.{block}.{name}.weight": rng.uniform(0.1, 4, builtin.layer(f"model.layers.{block}.{layer}").cols).astype(np.float32)
        for block in range(6)
        for name, layer in names.items()
    }


def write_binary(path: Path, squares: dict[str, np.ndarray]) -> Path:
    """The old form."""
    content = struct.pack("<i", len(squares))
    for name, mean in squares.items():
        content += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", CHUNKS, len(mean))
        content += (mean * CHUNKS).astype(np.float32).tobytes()
    text = b"calibration.txt"
    path.write_bytes(content + struct.pack("<ii", CHUNKS, len(text)) + text)
    return path


def write_gguf(path: Path, squares: dict[str, np.ndarray]) -> Path:
    """The form in GGUF."""
    import gguf

    writer = gguf.GGUFWriter(path, "")
    writer.add_type("imatrix")
    for name, mean in squares.items():
        writer.add_tensor(f"{name}.in_sum2", (mean * TOKENS).astype(np.float32)[None])
        writer.add_tensor(f"{name}.counts", np.full((1, 1), TOKENS, np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    return path


WRITERS = {"dat": write_binary, "gguf": write_gguf}
needs_gguf = pytest.mark.skipif(
    __import__("importlib.util").util.find_spec("gguf") is None,
    reason="the library gguf is not installed; it comes with the extra 'exchange'",
)


@needs_gguf
@pytest.mark.parametrize(("form", "tokens"), [("dat", CHUNKS * 512), ("gguf", TOKENS)])
def test_both_forms_give_the_diagonal(builtin: ModelHandle, tmp_path: Path, form: str, tokens: int) -> None:
    squares = draw(builtin)
    stats = wb.read_imatrix(builtin, WRITERS[form](tmp_path / f"imatrix.{form}", squares))
    assert len(stats) == 18
    layer = stats[DOWN]
    assert layer.tokens == tokens
    assert_close(layer.moment, torch.diag(torch.from_numpy(squares["blk.1.ffn_down.weight"])))


@needs_gguf
def test_it_weighs_as_the_same_second_moment_does(builtin: ModelHandle, tmp_path: Path) -> None:
    squares = draw(builtin)
    stats = wb.read_imatrix(builtin, write_binary(tmp_path / "imatrix.dat", squares))
    recipe = wb.recipe("rtn", bits=2, group=64, clip="moment")
    quantized = wb.quantize_model(builtin, recipe, stats, layers=DOWN)
    diagonal = torch.diag(torch.from_numpy(squares["blk.1.ffn_down.weight"]))
    expected = wb.quantize(builtin, DOWN, recipe, {DOWN: replace(stats[DOWN], moment=diagonal)})
    assert_close(quantized.layers[DOWN].weight(), expected.weight(), rtol=0, atol=0)
    plain = wb.quantize_model(builtin, wb.recipe("rtn", bits=2, group=64), layers=DOWN)
    assert not torch.equal(plain.layers[DOWN].weight(), quantized.layers[DOWN].weight())
    assert quantized.layers[DOWN].output_error is None
    assert quantized.calibration["diagonal"] is True


@needs_gguf
@pytest.mark.parametrize("name", ["gptq", "binary:compensation=true"])
def test_what_needs_correlations_says_so(builtin: ModelHandle, tmp_path: Path, name: str) -> None:
    stats = wb.read_imatrix(builtin, write_binary(tmp_path / "imatrix.dat", draw(builtin)))
    with pytest.raises(RecipeError, match="needs correlations between inputs, and an importance matrix holds only their mean"):
        wb.quantize_model(builtin, wb.recipe(name), stats, layers=DOWN)


@needs_gguf
def test_that_of_another_model_is_refused(builtin: ModelHandle, tmp_path: Path) -> None:
    squares = {name: mean[:-1] for name, mean in draw(builtin).items()}
    with pytest.raises(ModelError, match="inputs for .*, which has .*; it is of another model"):
        wb.read_imatrix(builtin, write_binary(tmp_path / "a.dat", squares))
    with pytest.raises(ModelError, match="names none of the 42 layers of 'builtin', but 'odd.weight' and 0 others"):
        wb.read_imatrix(builtin, write_binary(tmp_path / "b.dat", {"odd.weight": np.ones(4, np.float32)}))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 200), bit=st.integers(0, 7), end=st.integers(0, 400))
def test_any_flipped_bit_and_any_end_is_read_or_one_sentence(tmp_path: Path, place: int, bit: int, end: int) -> None:
    squares = {f"blk.{block}.ffn_up.weight": np.ones(16, np.float32) for block in range(4)}
    content = bytearray(write_binary(tmp_path / "a.dat", squares).read_bytes())
    content[place] ^= 1 << bit
    for damaged in (bytes(content), bytes(content[:end])):
        (tmp_path / "b.dat").write_bytes(damaged)
        try:
            read_imatrix_file(tmp_path / "b.dat")
        except ModelError as error:
            assert "\n" not in str(error)  # noqa: PT017  either outcome is right


@pytest.mark.parametrize(("mean", "sentence"), [(torch.inf, "negative or not finite"), (-1, "negative or not finite")])
def test_impossible_squares_are_refused(tmp_path: Path, mean: float, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        read_imatrix_file(write_binary(tmp_path / "a.dat", {"a.weight": np.full(4, mean, np.float32)}))
