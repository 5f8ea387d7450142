"""Large tensors take few pages, unless a user has decided otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from workbench import huge_pages
from workbench.huge_pages import TORCH_SETTING, use_huge_pages

COUNT_FAULTS = """
import resource
import workbench, torch
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
torch.ones(16, 1 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says whether it has huge pages")
def test_a_large_tensor_takes_few_pages() -> None:
    """64 MiB are 16,384 pages of 4 KiB and 32 of 2 MiB."""
    states = (huge_pages.SUPPORT / "enabled").read_text() if huge_pages.SUPPORT.exists() else "[never]"
    if "[never]" in states:
        pytest.skip("this system has no huge pages")
    environment = {name: value for name, value in os.environ.items() if name != TORCH_SETTING}
    faults = subprocess.run([sys.executable, "-c", COUNT_FAULTS], capture_output=True, text=True, check=True, env=environment)
    assert int(faults.stdout) < 8_000  # some memory may be in too many pieces for huge pages


def test_a_user_decides_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huge_pages, "SUPPORT", tmp_path)
    monkeypatch.setenv(TORCH_SETTING, "0")
    use_huge_pages()
    assert os.environ[TORCH_SETTING] == "0"


def test_where_there_are_none_nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huge_pages, "SUPPORT", tmp_path / "missing")
    monkeypatch.delenv(TORCH_SETTING, raising=False)
    use_huge_pages()
    assert TORCH_SETTING not in os.environ
