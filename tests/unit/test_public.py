"""The public surface is a promise: its names, that importing it stays light, and that apps and notebooks use nothing else."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import workbench as wb
from tests.lessons import NOTEBOOKS, code, read

PUBLIC = [
    "AttentionRaster", "BudgetPainter", "CacheRaster",
    "CalibrationView", "CardView", "ChannelScatter", "CodebookMicroscope", "ExpectationsView", "Explorer",
    "ForkFinder", "HistoryView", "KVCacheView", "LayerBench", "LayerBrowser", "LayerErrors", "LayerPlan",
    "LayerTable", "LedgerView", "MethodView", "ModelComparison", "PinnedView", "Recipe", "RecipeGallery", "Replay", "RunBar",
    "SaliencyView", "SpeedView", "Squeeze", "SqueezeView", "Store", "TextComparison", "WeightInspector", "WeightRaster",
    "WhatIfView", "allocate",
    "calibrate", "card", "compare", "diff_cards", "error_budget", "errors", "export", "figures", "fuse", "layer_scores", "load",
    "measure_cache", "measure_kernels", "measures", "notebook", "open_model", "pack_model", "part", "quantize",
    "quantize_model", "read_imatrix", "recipe", "recipes", "refine_model", "save", "sensitivity", "take_over", "text",
    "to_transformers", "what_if",
]  # fmt: skip
CORE = [
    "workbench",
    "workbench.kernels.matmul.packed_linear",
    "workbench.kernels.matmul.dispatch",
    "workbench.presets",
    "workbench.quantizers",
    "workbench.jobs",
]
ROOT = Path(__file__).parents[2]
PUBLIC_MODULES = {"workbench", "workbench.figures", "workbench.measures", "workbench.from_scratch"}
HEAVY = ["bokeh", "datashader", "holoviews", "ipywidgets", "numba", "pandas", "panel", "plotly", "transformers", "triton"]
SLOW = [*HEAVY, "numpy", "scipy", "torch"]  # nothing that answers at once needs these
COMMAND = "from workbench.cli import main\ntry: main()\nexcept SystemExit: pass"
QUICK_COMMANDS = {
    "help": ["--help"],
    "help of a command": ["quantize", "-h"],
    "version": ["--version"],
    "recipes": ["recipes"],
    "recipes as JSON": ["recipes", "--json"],
    "one recipe": ["recipes", "gptq"],
    "unknown recipe": ["recipes", "gptp"],
    "wrong usage": ["quantize", "--bits"],
}


def loaded_by(code: str, libraries: list[str] = HEAVY, words: Sequence[str] = (), **environment: str) -> list[str]:
    """The libraries that a fresh interpreter has loaded after running `code` with `words` as arguments."""
    report = f"{code}\nimport sys\nprint(*['LOADED', *[name for name in {libraries} if name in sys.modules]])"
    command = [sys.executable, "-c", report, *words]
    ended = subprocess.run(command, text=True, capture_output=True, check=True, env={**os.environ, **environment})
    return ended.stdout.splitlines()[-1].split()[1:]


def test_public_names_are_these_and_sorted() -> None:
    assert wb.__all__ == sorted(wb.__all__) == PUBLIC
    assert dir(wb) == PUBLIC


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        AttributeError, match="no attribute 'quantise'; its public names are AttentionRaster, BudgetPainter, CacheRaster"
    ):
        _ = wb.quantise


def test_recipe_stays_a_function_after_its_module_is_imported() -> None:
    code = "import workbench as wb, workbench.recipe\nfrom workbench.recipe import Recipe\nassert callable(wb.recipe), wb.recipe"
    assert loaded_by(code) == []


def test_core_loads_nothing_heavy() -> None:
    assert loaded_by(f"import {', '.join(CORE)}") == []


def test_loading_something_heavy_is_noticed() -> None:
    assert {"pandas", "plotly"} <= set(loaded_by("import workbench, pandas, plotly"))


def test_importing_the_package_loads_nothing_slow() -> None:
    assert loaded_by("import workbench as wb; wb.recipe, wb.recipes, wb.Recipe, wb.part", SLOW) == []
    assert "torch" in loaded_by("import workbench as wb; wb.recipe('rtn')", SLOW), "a recipe is made of its parts"


@pytest.mark.parametrize("words", QUICK_COMMANDS.values(), ids=QUICK_COMMANDS)
def test_a_command_that_answers_at_once_loads_nothing_slow(words: list[str]) -> None:
    assert loaded_by(COMMAND, SLOW, words) == []


def test_layers_listed_again_load_nothing_slow(tmp_path: Path) -> None:
    store = {"WORKBENCH_CACHE": str(tmp_path)}
    assert {"torch", "transformers"} <= set(loaded_by(COMMAND, SLOW, ["layers", "builtin"], **store))
    assert loaded_by(COMMAND, SLOW, ["layers", "builtin"], **store) == []


def test_completion_loads_nothing_slow() -> None:
    typed = {"COMP_WORDS": "workbench quantize builtin --recipe gp", "COMP_CWORD": "4"}
    assert loaded_by(COMMAND, SLOW, _WORKBENCH_COMPLETE="complete_bash", **typed) == []


def private_uses(code: str) -> Iterator[str]:
    """What a piece of code uses of the package that is not public: imports, and attributes of `wb` and its public modules."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "workbench":
            home = __import__(str(node.module), fromlist=["__all__"]) if node.module in PUBLIC_MODULES else None
            yield from (f"{node.module}.{alias.name}" for alias in node.names if alias.name not in getattr(home, "__all__", ()))
        elif isinstance(node, ast.Import):
            yield from (
                alias.name for alias in node.names if alias.name.startswith("workbench.") and alias.name not in PUBLIC_MODULES
            )
        elif isinstance(node, ast.Attribute):
            owner = ast.unparse(node.value)
            names = {"wb": PUBLIC, "wb.figures": dir(wb.figures), "wb.measures": dir(wb.measures)}.get(owner)
            if names is not None and node.attr not in names:
                yield f"{owner}.{node.attr}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_uses_only_what_is_public(path: Path) -> None:
    assert [use for piece in code(read(path)) for use in private_uses(piece)] == []  # also in its folded solutions


@pytest.mark.parametrize(
    ("code", "use"),
    [
        ("from workbench.store import Store", "workbench.store.Store"),
        ("from workbench import widgets", "workbench.widgets"),
        ("import workbench.widgets", "workbench.widgets"),
        ("import workbench as wb\nwb.widgets", "wb.widgets"),
        ("import workbench as wb\nwb.measures.nothing(1)", "wb.measures.nothing"),
    ],
)
def test_a_private_name_is_noticed(code: str, use: str) -> None:
    assert list(private_uses(code)) == [use]


def test_the_app_of_parts_is_ten_lines_of_public_names() -> None:
    code = (ROOT / "apps" / "parts.py").read_text()
    lines = [line for line in code.splitlines() if line.strip()]
    assert list(private_uses(code)) == []
    assert len(lines) <= 10


@pytest.mark.parametrize("module", ["figures", "measures"])
def test_names_of_a_public_module_are_these(module: str) -> None:
    home = getattr(wb, module)
    assert dir(home) == sorted(home.__all__) == sorted(home._HOMES)
    with pytest.raises(AttributeError, match=f"module 'workbench.{module}' has no attribute 'nothing'; it has "):
        _ = home.nothing


def imports_for_checkers(module: Path) -> dict[str, str]:
    """What a type checker takes each name of a module for, as `module:attribute`."""
    tree = ast.parse(module.read_text())
    blocks = [node.body for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for body in blocks for node in body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: f"{node.module}:{alias.name}" for node in imports for alias in node.names}


@pytest.mark.parametrize(("module", "package"), [("__init__", ""), ("figures", "workbench.views."), ("measures", "workbench.")])
def test_a_type_checker_imports_each_name_from_where_it_comes(module: str, package: str) -> None:
    home = wb if module == "__init__" else getattr(wb, module)
    homes = {name: f"{package}{place}" if ":" in place else f"{place}:{name}" for name, place in home._HOMES.items()}
    seen = imports_for_checkers(ROOT / "workbench" / f"{module}.py")
    assert {name: place for name, place in seen.items() if not place.startswith("workbench:")} == homes


def test_a_page_loads_holoviews_with_its_first_raster() -> None:
    page = "import workbench.widgets.shell.page, workbench.widgets.weights.weight_raster"
    assert "holoviews" not in loaded_by(page)
    assert "holoviews" in loaded_by("from workbench.views import holoviews_style\nholoviews_style.load_holoviews()")
