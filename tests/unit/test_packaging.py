"""Files that repeat one another agree: pyproject, environment.yml, changelog, README, continuous integration, notebooks."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml

import workbench as wb

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# declared, although no module here imports them
FOR_OTHERS = {
    "anywidget": "plotly's FigureWidget in notebooks",
    "ipywidgets": "plotly's FigureWidget, and components as widgets",
    "jupyter_bokeh": "components as widgets: `.ipywidget()`",
    "jupyterlab": "the notebooks",
}
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def commands(readme: str) -> list[str]:
    """The lines of the README's shell blocks."""
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", readme, re.S)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_environment_repeats_the_project() -> None:
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(entry["pip"] for entry in conda if isinstance(entry, dict))
    assert f"python{PROJECT['requires-python']}" in conda
    requirements = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["test"]]
    assert pip == ["--constraint constraints.txt", *requirements, "--editable ."]


def test_requirements_are_sorted_and_bounded_below() -> None:
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for requirements in lists:
        names = [re.split(r"[\[<>=; ]", text, maxsplit=1)[0].lower() for text in requirements]
        assert names == sorted(names)
        assert all(">=" in text for text in requirements)


def imported(folders: list[str]) -> set[str]:
    """Top-level names of everything that the modules below these folders import."""
    found = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"workbench", "apps", "tests"}


def test_requirements_are_what_is_imported() -> None:
    declared = {re.split(r"[<>=]", text, maxsplit=1)[0] for text in PROJECT["dependencies"]}
    assert set(FOR_OTHERS) <= declared
    assert imported(["workbench", "apps"]) - {
        "dask",
        "datasets",
        "distributed",
        "gguf",
        "llama_cpp",
        "lm_eval",
        "triton",
    } == declared - set(FOR_OTHERS)


def test_extras_are_there() -> None:
    assert {"test", "distributed", "eval", "exchange", "gpu"} <= set(PROJECT["optional-dependencies"])


def test_changelog_starts_with_this_version() -> None:
    versions = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert versions[0] == wb.__version__


def test_readme_has_two_commands_and_ci_runs_the_second() -> None:
    explore, test = commands((ROOT / "README.md").read_text())[:2]
    assert explore.endswith("pip install -e . -c constraints.txt && .venv/bin/workbench explore")
    assert test.endswith("python -m pytest -n auto --dist worksteal")
    script = (ROOT / ".ci/run").read_text().splitlines()
    assert script[-2] == test
    assert script[-1] == f"{test.rpartition(' && ')[2]} -m complete"


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_paths_in_documents_exist(document: str) -> None:
    named = re.findall(r"`((?:workbench|apps|notebooks|tests)/[\w./-]*)`", (ROOT / document).read_text())
    assert named, f"{document} names no path"
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_stripped_short_and_says_what_it_teaches(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert len(cells) <= 30
    assert cells[0].cell_type == "markdown"
    assert "you will know" in cells[0].source
    code = [cell for cell in cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code)


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


def test_the_citation_has_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], citation["license"]) == (wb.__version__, PROJECT["license"])
