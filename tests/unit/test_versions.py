"""Which versions are installed: constraints.txt fits pyproject.toml, every command uses it, workflows run scripts that exist."""

import os
import re
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
CONSTRAINTS = (ROOT / "constraints.txt").read_text()
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
# their versions are dates, so the first number says nothing of what breaks
DATED = {"dask", "packaging"}
USE = "-c constraints.txt"


def pinned(text: str) -> list[Requirement]:
    """The lines of a constraints file."""
    return [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]


def misfits(requirements: list[str], constraints: list[Requirement]) -> list[str]:
    """Requirements that no constraint names, or whose range a constraint leaves."""
    versions = {canonicalize_name(line.name): str(line.specifier).removeprefix("==") for line in constraints}
    wanted = [(Requirement(text), canonicalize_name(Requirement(text).name)) for text in requirements]
    return [str(need) for need, name in wanted if name not in versions or not need.specifier.contains(versions[name])]


def unbounded(requirements: list[str]) -> list[str]:
    """Requirements that let in any later version."""
    wanted = [Requirement(text) for text in requirements]
    return [str(need) for need in wanted if need.name not in DATED and "<" not in {part.operator for part in need.specifier}]


def scripts(workflow: str) -> list[str]:
    """Files of this repository that the steps of a workflow run, once for each value of its matrix."""
    found = []
    for job in yaml.safe_load(workflow)["jobs"].values():
        for step in job["steps"]:
            for values in job.get("strategy", {}).get("matrix", {}).get("include", [{}]):
                command = re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda name, values=values: values[name[1]], step.get("run", ""))
                found += re.findall(r"(?<![\w/])\.ci/[^\s;&|]*", command)
    return found


def test_constraints_fit_every_requirement() -> None:
    assert misfits(PROJECT["dependencies"] + EXTRAS["test"] + EXTRAS["gpu"], pinned(CONSTRAINTS)) == []


def test_a_misfit_is_found() -> None:
    needs = ["torch>=2.8", "pandas<3", "pyyaml>=6"]
    assert misfits(needs, pinned("# planted\ntorch==2.7.1\nPyYAML==6.0.2")) == ["torch>=2.8", "pandas<3"]


def test_constraints_are_sorted_exact_and_for_any_build() -> None:
    lines = pinned(CONSTRAINTS)
    names = [line.name for line in lines]
    assert names == sorted(set(names))
    assert [str(line) for line in lines if not re.fullmatch(r"==[\w.]+", str(line.specifier))] == []


def test_constraints_say_how_they_are_made() -> None:
    header = "\n".join(line for line in CONSTRAINTS.splitlines() if line.startswith("#"))
    made_by = re.findall(r"`(\.ci/\w+)", header)
    assert ".ci/pin" in made_by
    assert [name for name in made_by if not os.access(ROOT / name, os.X_OK)] == []


def test_requirements_are_bounded_above() -> None:
    assert unbounded([need for needs in [PROJECT["dependencies"], *EXTRAS.values()] for need in needs]) == []


def test_an_unbounded_requirement_is_found() -> None:
    assert unbounded(["torch>=2.8", "numpy>=2,<3", "packaging>=24"]) == ["torch>=2.8"]


@pytest.mark.parametrize("path", ["README.md", ".ci/run"])
def test_commands_use_the_constraints(path: str) -> None:
    installs = [line for line in (ROOT / path).read_text().splitlines() if "pip install -e" in line]
    assert installs, f"{path} installs nothing"
    assert [line for line in installs if USE not in line] == []


def test_ends_of_the_ranges_are_tested_without_the_constraints() -> None:
    for name in ["newest", "lowest"]:
        script = (ROOT / ".ci" / name).read_text()
        assert "constraints.txt" not in script
        assert "-m pytest" in script


def test_workflows_run_scripts_that_exist() -> None:
    named = {name for path in WORKFLOWS for name in scripts(path.read_text())}
    assert named == {".ci/run", ".ci/newest", ".ci/lowest"}
    assert [name for name in sorted(named) if not os.access(ROOT / name, os.X_OK)] == []


def test_a_script_of_a_workflow_is_found() -> None:
    matrix = "strategy: {matrix: {include: [{end: first}, {end: last}]}}"
    planted = f"jobs: {{one: {{{matrix}, steps: [{{uses: checkout}}, {{run: '.ci/${{{{ matrix.end }}}} && .ci/other'}}]}}}}"
    assert scripts(planted) == [".ci/first", ".ci/other", ".ci/last", ".ci/other"]


def test_scripts_are_bash_that_parses() -> None:
    for path in sorted((ROOT / ".ci").iterdir()):
        said = subprocess.run(["bash", "-n", path], capture_output=True, text=True, check=False)
        assert said.returncode == 0, said.stderr


def test_a_deprecation_fails_a_test() -> None:
    with pytest.raises(DeprecationWarning, match="planted"):
        warnings.warn("planted", DeprecationWarning, stacklevel=1)


@pytest.mark.parametrize(
    ("options", "errors"), [pytest.param([], 0, id="as-users-run-it"), pytest.param(["-Werror"], 1, id="planted")]
)
def test_the_package_turns_no_warning_into_an_error(options: list[str], errors: int) -> None:
    """A newcomer whose library has deprecated something sees a program that works."""
    code = "import warnings, workbench.cli, workbench as wb; wb.open_model('builtin').layers()"
    count = "print(sum(action == 'error' for action, *_ in warnings.filters))"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    command = [sys.executable, *options, "-c", f"{code}; {count}"]
    said = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout.strip()) == (0, str(errors)), said.stderr
