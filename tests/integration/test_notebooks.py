"""Notebooks claim what stands in their prose; a false claim and a wrong solution stop a run. `tests/browser` runs them all."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.integration.notebook_claims import CLAIMS
from tests.lessons import NOTEBOOKS, ROOT, claimed, prose, read


def execute(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Run all cells in `folder` and return the notebook with its outputs."""
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    return client.execute()


@pytest.fixture(autouse=True)
def from_the_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernel import the package of this clone, also where it is not installed."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_claims_stand_in_the_prose(path: Path) -> None:
    text = prose(read(path))
    assert [quote for quote in CLAIMS[path.stem] if quote not in text] == []


@pytest.mark.slow
def test_a_false_claim_and_a_wrong_solution_are_noticed(tmp_path: Path) -> None:
    fold = "<details><summary>Solution</summary>\n\n```python\n{}\n```\n\n</details>"
    cells = [nbformat.v4.new_code_cell("x = 1"), nbformat.v4.new_markdown_cell(fold.format("y = x + 1"))]
    right = nbformat.v4.new_notebook(cells=cells)
    execute(claimed(right, {"It is two": "y == 2"}), tmp_path)
    with pytest.raises(CellExecutionError, match="It is three"):
        execute(claimed(right, {"It is three": "y == 3"}), tmp_path)
    wrong = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(fold.format("undefined"))])
    with pytest.raises(CellExecutionError, match="'undefined' is not defined"):
        execute(claimed(wrong, {}), tmp_path)


@pytest.mark.slow
def test_a_failing_cell_is_noticed(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import workbench as wb\nwb.open_model('nowhere')")])
    with pytest.raises(CellExecutionError, match="there is no folder 'nowhere'"):
        execute(notebook, tmp_path)
