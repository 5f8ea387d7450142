"""Fixtures for every test: the built-in model, the data folder, and tiny random models of each family, written to disk."""

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported: workers that wait for each other's threads crawl

import tempfile
from pathlib import Path

import psutil
import pytest

from tests import tiers
from tests.tiny_models import FAMILIES, write_model
from workbench.models import ModelHandle, open_model

os.environ["HF_HUB_OFFLINE"] = "1"  # no test uses the network
WORKER_BYTES = 2 << 30  # memory of one worker
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers share the store of the process that starts them, as programs of one user do
    _cache = tempfile.TemporaryDirectory(prefix="workbench-tests-")  # a user's store is neither read nor filled
    os.environ["WORKBENCH_CACHE"] = _cache.name
os.environ["WORKBENCH_BACKGROUND"] = "nice"  # all cores are busy: a job that only takes what is idle would hold its test up
os.environ["WORKBENCH_SQUEEZE"] = "ask"  # a page that is opened builds nothing behind a test's back


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say of each test in which tier it runs, and begin with those that take longest."""
    tiers.mark_tiers(items)
    tiers.begin_with_longest(items)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the files of other tiers unread in the fast check: reading all of them takes longer than running it."""
    if config.getoption("markexpr") != "fast" or collection_path.suffix != ".py":
        return None
    return collection_path.relative_to(config.rootpath).as_posix() not in tiers.FAST or None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Workers for `-n auto`: as many as this process may use cores and as fit into the free memory."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cores, psutil.virtual_memory().available // WORKER_BYTES))


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
