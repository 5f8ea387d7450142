"""Every test runs in one tier: the lists name tests that exist, and what one command leaves out, the other runs."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import tiers

ROOT = Path(__file__).resolve().parents[2]


def collect(*arguments: str) -> list[str]:
    """Node ids of the tests that pytest would run."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *arguments]
    said = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    return [line for line in said.stdout.splitlines() if "::" in line]


def unknown(entry: str) -> bool:
    """Whether an entry names no folder, no file, or no test in its file; its case, if it names one, is not looked at."""
    path, _, name = entry.partition("::")
    if not (ROOT / path).exists():
        return True
    tree = ast.parse((ROOT / path).read_text()) if name else ast.Module([], [])
    return name.partition("[")[0] not in {"", *(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))}


def test_entries_name_tests_that_exist() -> None:
    assert [entry for entry in [*tiers.FAST, *tiers.LONGEST, *tiers.entries()] if unknown(entry)] == []


def test_an_entry_that_names_nothing_is_found() -> None:
    here = "tests/unit/test_tiers.py"
    assert not unknown(here)
    assert not unknown(f"{here}::test_entries_name_tests_that_exist[case]")
    assert unknown(f"{here}::test_that_was_renamed")
    assert unknown("tests/unit/test_that_was_moved.py")
    assert not unknown("tests/browser")


def test_no_entry_repeats_another() -> None:
    entries = tiers.entries()
    assert [(one, other) for one in entries for other in entries if one is not other and tiers.covers(one, other)] == []


@pytest.mark.parametrize("entry", ["tests/unit", "tests/unit/a.py", "tests/unit/a.py::test_it", "tests/unit/a.py::test_it[1-x]"])
def test_an_entry_covers_what_lies_in_it(entry: str) -> None:
    assert tiers.covers(entry, "tests/unit/a.py::test_it[1-x]")
    assert not tiers.covers(entry, "tests/unity/a.py::test_it[1-x]")
    assert entry == "tests/unit" or not tiers.covers(entry, "tests/unit/a.pyx::test_it[1-x]")


def test_cases_exist_and_wait_for_the_complete_suite() -> None:
    cases = [entry for entry in tiers.entries() if "[" in entry]
    complete = collect("-m", "complete", *sorted({case.partition("::")[0] for case in cases}))
    assert cases
    assert [case for case in cases if case not in complete] == []


def test_what_one_command_leaves_out_the_other_runs() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["addopts"]
    assert options[-2:] == ["-m", "not complete"]
    assert (ROOT / ".ci/run").read_text().rstrip().endswith(" -m complete")
