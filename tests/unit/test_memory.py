"""Tensors that wait on disk."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from workbench.memory import release_memory, spill
from workbench.store import StoreWarning


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_values_come_back(dtype: torch.dtype) -> None:
    tensor = torch.randint(2, (3, 5)).to(dtype).T
    assert torch.equal(spill(tensor), tensor)
    assert spill(torch.empty(0, 4, dtype=dtype)).shape == (0, 4)


def test_nothing_is_left_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    kept = spill(torch.ones(10))
    assert not list((tmp_path / "spill").iterdir())
    assert kept.sum() == 10


FULL = """
import resource, torch
from workbench.errors import WorkbenchError
from workbench.memory import spill
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    spill(torch.ones(1000))
except WorkbenchError as error:
    print(error)
"""


def test_a_full_disk_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    said = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, check=True)
    begin = f"4,000 bytes of intermediate results do not fit below {tmp_path / 'spill'} (File too large), where "
    assert said.stdout.startswith(begin), said.stdout + said.stderr
    assert said.stdout.endswith("or set WORKBENCH_CACHE to a folder on a larger disk.\n")
    assert not list((tmp_path / "spill").iterdir())


def test_another_folder_takes_the_place_of_one_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(StoreWarning, match="intermediate results cannot be stored in .*file/cache/spill: Not a directory"):
        assert spill(torch.ones(10)).sum() == 10
    assert spill(torch.ones(10)).sum() == 10, "one warning is enough"


def test_memory_can_be_released_anywhere() -> None:
    release_memory()
