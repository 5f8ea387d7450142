"""The notebooks as lessons: their prose, their code, and the solutions of exercises, which are folded away in the prose."""

import re
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FOLDED = re.compile(r"<details><summary>Solution</summary>\n(.*?)\n</details>", re.S)
CODE = re.compile(r"```python\n(.*?)```", re.S)


def read(path: Path) -> nbformat.NotebookNode:
    """A notebook as a value."""
    return nbformat.read(path, as_version=4)


def prose(notebook: nbformat.NotebookNode) -> str:
    """All text of a notebook in one line, so that a sentence is found however its lines are broken."""
    return " ".join(" ".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown").split())


def code(notebook: nbformat.NotebookNode) -> list[str]:
    """The code of a notebook: its cells and its solutions, in the order in which they stand."""
    pieces = []
    for cell in notebook.cells:
        pieces += [cell.source] if cell.cell_type == "code" else solutions(cell.source)
    return pieces


def solutions(text: str) -> list[str]:
    """The code of each folded solution in the text of a cell."""
    return [piece for fold in FOLDED.findall(text) for piece in CODE.findall(fold)]


def solved(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The same notebook with each solution as a cell below its exercise, where a reader would try it."""
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "markdown":
            cells += [nbformat.v4.new_code_cell(piece) for piece in solutions(cell.source)]
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


def claimed(notebook: nbformat.NotebookNode, claims: dict[str, str]) -> nbformat.NotebookNode:
    """The notebook with its solutions as cells, and with a cell for each claim at the end."""
    near = "near = lambda value, expected, tolerance: abs(value - expected) <= tolerance"
    checks = [nbformat.v4.new_code_cell(f"assert ({expression}), {quote!r}") for quote, expression in claims.items()]
    notebook = solved(notebook)
    notebook.cells += [nbformat.v4.new_code_cell(near), *checks]
    return notebook
