"""Our streaming writer and the library's give the same file, byte for byte."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from workbench.artifact.tensor_file import DTYPES, write_tensors

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=12).filter(
    lambda name: name != "__metadata__"
)
SHAPES = st.lists(st.integers(0, 5), max_size=3)


def make(dtype: torch.dtype, shape: list[int]) -> torch.Tensor:
    size = torch.Size(shape).numel() * dtype.itemsize
    return torch.randint(2, (size,), dtype=torch.uint8).view(dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, st.tuples(st.sampled_from(sorted(DTYPES, key=str)), SHAPES), min_size=1, max_size=6))
def test_any_tensors_are_written_as_the_library_writes_them(tmp_path_factory: pytest.TempPathFactory, kinds: dict) -> None:
    folder = tmp_path_factory.mktemp("files")
    tensors = {name: make(dtype, shape) for name, (dtype, shape) in kinds.items()}
    write_tensors(folder / "ours", tensors)
    save_file(tensors, folder / "theirs", metadata={"format": "pt"})
    assert (folder / "ours").read_bytes() == (folder / "theirs").read_bytes()
    read = load_file(folder / "ours")
    assert all(
        torch.equal(read[name].view(torch.uint8), tensor.view(torch.uint8)) for name, tensor in tensors.items() if tensor.ndim
    )


def test_a_large_tensor_is_written_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.artifact.tensor_file.WRITE_BYTES", 7)
    tensor = torch.arange(1000, dtype=torch.int16)
    write_tensors(tmp_path / "file", {"a": tensor, "b": tensor[::3]})
    assert torch.equal(load_file(tmp_path / "file")["b"], tensor[::3])
