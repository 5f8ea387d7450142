"""Stored tensors give their memory back once they are prepared, and keep their values."""

import os
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from workbench.kernels.formats.format import decode
from workbench.kernels.matmul.mapped_pages import release_pages
from workbench.kernels.matmul.packed_linear import PackedLinear
from workbench.kernels.packing.packed import Packed

ROWS, COLS = 1024, 4096


def map_tensors(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors in a mapped file, every page of them in memory."""
    save_file(tensors, path)
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())  # only pages that are on the disk can be handed back
    mapped = load_file(path)
    for tensor in mapped.values():
        tensor.clone()
    return mapped


def count_resident(path: Path) -> int:
    """Bytes of a mapped file that are in this process's memory."""
    found = re.search(rf"{re.escape(str(path))}\n(?:.*\n)*?Rss: +(\d+) kB", Path("/proc/self/smaps").read_text())
    return 1024 * int(found[1]) if found else 0


@pytest.fixture
def signs() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    signs = torch.randint(0, 256, (ROWS * COLS // 8,), dtype=torch.uint8, generator=draw)
    return {"signs": signs, "scale": torch.rand(1, ROWS, 1, generator=draw).half()}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux takes single pages back")
def test_a_prepared_layer_leaves_its_file(tmp_path: Path, signs: dict[str, Tensor]) -> None:
    path = tmp_path / "layer.safetensors"
    mapped = map_tensors(path, signs)
    before = count_resident(path)
    assert before > ROWS * COLS // 8
    release_pages([mapped["signs"]])
    if count_resident(path) == before:
        pytest.skip("files of this folder lie in memory")
    mapped = map_tensors(path, signs)
    layer = PackedLinear(Packed("planes", ROWS, COLS, mapped, {"planes": 1, "span": COLS}))
    x = torch.randn(1, COLS)
    y = layer(x)
    assert count_resident(path) < ROWS * COLS // 8 / 4
    assert torch.equal(layer.packed.tensors["signs"], signs["signs"])
    assert torch.allclose(y, x @ decode(layer.packed).T, rtol=1e-3, atol=1e-3 * float(y.abs().max()))


def test_memory_that_is_no_files_keeps_its_values(signs: dict[str, Tensor]) -> None:
    before = signs["signs"].clone()
    release_pages([signs["signs"], signs["signs"][3:], signs["scale"], torch.zeros(0)])
    assert torch.equal(signs["signs"], before)
