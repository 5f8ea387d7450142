"""Tensors that wait on disk."""

from pathlib import Path

import pytest
import torch

from workbench.errors import WorkbenchError
from workbench.memory import release_memory, spill


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


def test_a_full_disk_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.memory.shutil.disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(WorkbenchError, match="4,000 bytes of intermediate results do not fit below .*, where 100 bytes are free"):
        spill(torch.ones(1000))


def test_memory_can_be_released_anywhere() -> None:
    release_memory()
