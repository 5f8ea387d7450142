"""What waits for another module runs once, right after it, and changes nothing else about it."""

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.import_hook import Reporting, Watcher, run_when_imported

NAME = "imported_by_this_test"


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that can be imported, not imported yet; finders that are left over go afterwards."""
    path = tmp_path / f"{NAME}.py"
    path.write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield path
    sys.modules.pop(NAME, None)
    sys.meta_path[:] = [finder for finder in sys.meta_path if not (isinstance(finder, Watcher) and finder.name == NAME)]


def waiting() -> list[str]:
    return [finder.name for finder in sys.meta_path if isinstance(finder, Watcher)]


def test_it_runs_once_after_the_module(module: Path) -> None:
    seen = []
    run_when_imported(NAME, lambda: seen.append(sys.modules[NAME].value))
    importlib.import_module("colorsys")
    assert (seen, waiting().count(NAME)) == ([], 1)
    found = importlib.import_module(NAME)
    assert (seen, waiting().count(NAME)) == ([1], 0)
    importlib.reload(found)
    assert seen == [1]


def test_it_runs_at_once_where_the_module_is_there(module: Path) -> None:
    importlib.import_module(NAME)
    seen = []
    run_when_imported(NAME, lambda: seen.append(1))
    assert (seen, waiting().count(NAME)) == ([1], 0)


def test_the_module_is_as_without_it(module: Path) -> None:
    run_when_imported(NAME, lambda: None)
    found = importlib.import_module(NAME)
    assert found.__loader__ is found.__spec__.loader
    assert not isinstance(found.__loader__, Reporting)
    assert inspect.getsource(found) == "value = 1\n"


def test_a_module_that_fails_is_waited_for_until_it_works(module: Path) -> None:
    seen = []
    run_when_imported(NAME, lambda: seen.append(1))
    module.write_text("raise ValueError('not yet')\n")
    with pytest.raises(ValueError, match="not yet"):
        importlib.import_module(NAME)
    assert (seen, waiting().count(NAME)) == ([], 1)
    module.write_text("value = 'now it works'\n")
    importlib.invalidate_caches()
    importlib.import_module(NAME)
    assert (seen, waiting().count(NAME)) == ([1], 0)


def test_a_module_that_is_not_there_stays_missing() -> None:
    run_when_imported("there_is_no_such_module", lambda: None)
    try:
        with pytest.raises(ModuleNotFoundError, match="No module named 'there_is_no_such_module'"):
            importlib.import_module("there_is_no_such_module")
    finally:
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, Watcher)]
