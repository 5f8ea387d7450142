"""The house rules that a tool can check, each run as a user would run it, and each seen to fail on a planted fault."""

import ast
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINES = 400


def run(tool: str, *arguments: str, folder: Path = ROOT, given: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run a tool of this environment and return what it said."""
    command = shutil.which(tool, path=sysconfig.get_path("scripts")) or tool
    return subprocess.run([command, *arguments], cwd=folder, input=given, text=True, capture_output=True, check=False)


def sources(*folders: str) -> list[Path]:
    """Python files of this repository, relative to its root, without what tools leave behind."""
    found = (path.relative_to(ROOT) for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path for path in found if "__pycache__" not in path.parts)


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        pytest.param("ruff", ["check", "."], id="ruff"),
        pytest.param("ruff", ["format", "--check", "."], id="ruff-format"),
        pytest.param("mypy", [], id="mypy"),
        pytest.param("lint-imports", ["--no-cache"], id="import-floors"),
    ],
)
def test_tool_passes(tool: str, arguments: list[str]) -> None:
    said = run(tool, *arguments)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize(
    ("rule", "code"),
    [
        pytest.param("D100", "value = 1\n", id="module-without-docstring"),
        pytest.param("F401", '"""Planted."""\n\nimport os\n', id="unused-import"),
        pytest.param("T201", '"""Planted."""\n\nprint(1)\n', id="print"),
        pytest.param("FIX002", '"""Planted."""\n# TODO later\n', id="left-for-later"),
        pytest.param("S301", '"""Planted."""\n\nimport pickle\n\npickle.loads(b"")\n', id="pickle"),
    ],
)
def test_ruff_can_fail(rule: str, code: str) -> None:
    said = run("ruff", "check", "--stdin-filename", "workbench/planted.py", "-", given=code)
    assert said.returncode == 1
    assert rule in said.stdout


def test_mypy_can_fail(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("def twice(x):\n    return 2 * x\n")
    said = run("mypy", "--config-file", str(ROOT / "pyproject.toml"), str(planted))
    assert said.returncode == 1
    assert "Function is missing a type annotation" in said.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's modules alone, in a folder where faults may be planted."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "workbench", folder / "workbench", ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    return folder


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        pytest.param("errors.py", "import workbench.recipe", "Floors", id="floors"),
        pytest.param("widgets/base/marks.py", "import workbench.widgets.shell", "Rooms of the screen", id="rooms-of-widgets"),
        pytest.param("views/theme.py", "import workbench.views.weights", "Rooms of figures", id="rooms-of-views"),
        pytest.param("analysis/glossary.py", "import workbench.analysis.predictions", "Rooms of measures", id="rooms-of-data"),
        pytest.param("kernels/kernel_mode.py", "import workbench.kernels.matmul", "Rooms of kernels", id="rooms-of-kernels"),
        pytest.param("recipe.py", "import panel", "User interfaces only", id="user-interface-in-the-core"),
        pytest.param("bits.py", "import plotly", "Figures only", id="figure-in-the-core"),
        pytest.param("kernels/packing/bitpack.py", "import numba", "Compilers only", id="compiler-outside-its-folder"),
        pytest.param("quantizers/pipeline.py", "import transformers", "transformers only", id="transformers-outside-models"),
    ],
)
def test_import_floors_can_fail(copy: Path, module: str, line: str, contract: str) -> None:
    path = copy / "workbench" / module
    before = path.read_text()
    path.write_text(f"{before}\n{line}\n")
    try:
        said = run("lint-imports", "--no-cache", folder=copy)
    finally:
        path.write_text(before)
    assert said.returncode == 1, said.stdout
    broken = [text for text in said.stdout.splitlines() if " BROKEN" in text]  # it may end with "(4 ignored imports)"
    assert len(broken) == 1, said.stdout
    assert contract in broken[0]


def test_files_stay_short() -> None:
    lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in sources("workbench", "apps")}
    assert lengths, "no sources were found"
    assert {path: lines for path, lines in lengths.items() if lines > LINES} == {}


def test_no_file_is_named_after_nothing() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc", "tools"}
    assert [str(path) for path in sources("workbench", "apps", "tests") if vague & {path.stem, *path.parts[:-1]}] == []


def skip_reasons(path: Path) -> list[str]:
    """The sentences with which a test file skips tests; the constant pieces of an f-string count each."""
    reasons = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).rsplit(".", 1)[-1] in {"skip", "skipif", "importorskip"}:
            texts = [*node.args[:1], *(word.value for word in node.keywords if word.arg == "reason")]
            strings = (leaf for text in texts for leaf in ast.walk(text) if isinstance(leaf, ast.Constant))
            reasons += [leaf.value.strip() for leaf in strings if isinstance(leaf.value, str) and " " in leaf.value.strip()]
    return reasons


def test_every_skip_is_listed() -> None:
    listed = (ROOT / "tests/SKIPS.md").read_text()
    assert [reason for path in sources("tests") for reason in skip_reasons(ROOT / path) if reason not in listed] == []


def test_a_skip_is_found(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("import pytest\npytest.skip('no such machine here')\n")
    assert skip_reasons(planted) == ["no such machine here"]


# read JSON themselves: the door; lines that our own process wrote a moment ago; the store's own entries, which are digested
OWN_JSON = {"workbench/json_value.py", "workbench/subprocess_job.py", "workbench/store.py"}


def json_readers(path: Path) -> list[str]:
    """Lines of a file that turn JSON text into values without the door's limits."""
    names = {"json.load", "json.loads", "json.JSONDecoder", "load", "loads", "JSONDecoder"}
    tree = ast.parse(path.read_text())
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "json"
        for alias in node.names
    }
    uses = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name))
    found = [node for node in uses if (said := ast.unparse(node)) in names and ("." in said or said in imported)]
    return [f"{path.name}:{node.lineno}" for node in found]


def test_json_comes_through_one_door() -> None:
    readers = {str(path): json_readers(ROOT / path) for path in sources("workbench", "apps")}
    assert {path: lines for path, lines in readers.items() if lines and path not in OWN_JSON} == {}
    assert all(readers[path] for path in OWN_JSON), "an exception that nothing needs any more"


@pytest.mark.parametrize(
    "code",
    ["import json\n\njson.loads('1')\n", "import json\n\nread = json.load\n", "from json import loads\n\nloads('1')\n"],
    ids=["call", "reference", "imported"],
)
def test_json_beside_the_door_is_found(tmp_path: Path, code: str) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(code)
    assert json_readers(planted) == ["planted.py:3"]
