"""Fixtures for every test: the built-in model, the data folder, and tiny random models of each family, written to disk."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported: workers that wait for each other's threads crawl

import tempfile
from pathlib import Path

import pytest

from tests.tiny_models import FAMILIES, write_model
from workbench.models import ModelHandle, open_model

os.environ["HF_HUB_OFFLINE"] = "1"  # no test uses the network
_cache = tempfile.TemporaryDirectory(prefix="workbench-tests-")  # a user's store is neither read nor filled
os.environ["WORKBENCH_CACHE"] = _cache.name
os.environ["WORKBENCH_SQUEEZE"] = "ask"  # a page that is opened builds nothing behind a test's back


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folder of a tiny random model by family; read only."""
    root = tmp_path_factory.mktemp("models")
    return {family: write_model(family, root / family) for family in FAMILIES}


@pytest.fixture(scope="session")
def builtin() -> ModelHandle:
    """The built-in model, opened once."""
    return open_model("builtin")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data for tests: WORKBENCH_DATA, or ../shared/data beside the repository; skips when absent."""
    given = os.environ.get("WORKBENCH_DATA")
    folder = Path(given) if given else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no data folder {folder}; set WORKBENCH_DATA to run this test")
    return folder


@pytest.fixture(scope="session")
def stories260k(data_folder: Path) -> ModelHandle:
    """The small real Llama of the data folder, opened once."""
    return open_model(data_folder / "stories260K")
