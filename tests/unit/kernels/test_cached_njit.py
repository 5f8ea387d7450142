"""Compiled loops are kept on disk, and found again only while no source of their folder has changed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numba
import pytest

from workbench.kernels.jit import cached_njit

CODE = """
import numpy as np
from workbench.kernels.matmul.numba.transforms import apply_butterflies
apply_butterflies(np.ones((1, 8), np.float32), 1)
print(sum(apply_butterflies.stats.cache_hits.values()), sum(apply_butterflies.stats.cache_misses.values()))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of sources of its own."""
    (tmp_path / "one.py").write_text("a = 1\n")
    monkeypatch.setattr(cached_njit, "KERNELS", tmp_path)
    monkeypatch.setattr(cached_njit, "COMPILED_FOLDERS", (".",))
    cached_njit.find_cache_folder.cache_clear()
    yield tmp_path
    cached_njit.find_cache_folder.cache_clear()


def test_every_state_of_the_sources_has_its_place(folder: Path) -> None:
    first = cached_njit.find_cache_folder()
    assert Path(first).parent == folder / "jit" / "__pycache__"
    (folder / "two.py").write_text("b = 2\n")
    cached_njit.find_cache_folder.cache_clear()
    assert cached_njit.find_cache_folder() != first
    (folder / "two.py").unlink()
    cached_njit.find_cache_folder.cache_clear()
    assert cached_njit.find_cache_folder() == first


def modules_outside(folders: tuple[str, ...]) -> list[str]:
    """Modules below `kernels` that use numba and lie in none of these folders."""
    kernels = cached_njit.KERNELS
    users = [
        path
        for path in kernels.rglob("*.py")
        if re.search(r"^\s*(import|from) (numba|llvmlite)|cached_njit import", path.read_text(), re.M)
    ]
    assert users
    return [str(path.relative_to(kernels)) for path in users if not any(path.is_relative_to(kernels / one) for one in folders)]


def test_the_name_of_the_cache_covers_every_module_that_is_compiled() -> None:
    assert modules_outside(cached_njit.COMPILED_FOLDERS) == []
    assert modules_outside(("jit", "matmul/numba")), "the searches are compiled too"


def test_numba_keeps_its_own_place() -> None:
    before = numba.config.CACHE_DIR
    assert cached_njit.compile_cached(lambda x: x + 1)(1) == 2
    assert before == numba.config.CACHE_DIR


def test_a_second_process_compiles_nothing(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    said = [
        subprocess.run([sys.executable, "-c", CODE], text=True, capture_output=True, env=environment, check=True) for _ in "ab"
    ]
    assert [one.stdout.split() for one in said] == [["0", "1"], ["1", "0"]]


LIMITED = (
    """
import resource, warnings
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
"""
    + CODE
)


@pytest.mark.parametrize("code", [pytest.param(CODE, id="no-folder"), pytest.param(LIMITED, id="full-disk")])
def test_what_cannot_be_kept_is_one_warning(tmp_path: Path, code: str) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "below" if code == CODE else tmp_path / "cache"
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stderr
    assert said.stderr.count("compiled kernels are not cached") == 1
    assert "set NUMBA_CACHE_DIR to another folder" in said.stderr
