"""Every notebook runs from top to bottom in a fresh kernel, with its solutions, without a warning, and says what is true."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tests.integration.notebook_claims import CLAIMS
from tests.lessons import NOTEBOOKS, ROOT, prose, read, solved

FIGURE = "application/vnd.plotly.v1+json"
WIDGET, COMPONENT = "application/vnd.jupyter.widget-view+json", "application/vnd.holoviews_exec.v0+json"


def execute(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Run all cells in `folder` and return the notebook with its outputs."""
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    return client.execute()


@pytest.fixture(autouse=True)
def from_the_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the kernel import the package of this clone, also where it is not installed."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))


def claimed(notebook: nbformat.NotebookNode, claims: dict[str, str]) -> nbformat.NotebookNode:
    """The notebook with its solutions as cells, and with a cell for each claim at the end."""
    near = "near = lambda value, expected, tolerance: abs(value - expected) <= tolerance"
    checks = [nbformat.v4.new_code_cell(f"assert ({expression}), {quote!r}") for quote, expression in claims.items()]
    notebook = solved(notebook)
    notebook.cells += [nbformat.v4.new_code_cell(near), *checks]
    return notebook


def is_live(data: dict[str, object]) -> bool:
    """Whether an output is a component that can be operated; loading Panel's scripts has no text."""
    return WIDGET in data or {COMPONENT, "text/plain"} <= set(data)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, tmp_path: Path) -> None:
    done = execute(claimed(read(path), CLAIMS[path.stem]), tmp_path)
    outputs = [output for cell in done.cells if cell.cell_type == "code" for output in cell.outputs]
    complaints = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert complaints == []
    shown = [output.get("data", {}) for output in outputs]
    assert any(is_live(data) for data in shown), "a reader turns a knob somewhere"
    assert any(FIGURE in data or WIDGET in data for data in shown)


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
