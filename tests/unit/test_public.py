"""The public surface is a promise: its names, that importing it stays light, and that apps and notebooks use nothing else."""

import subprocess
import sys

import pytest

import workbench as wb

PUBLIC = [
    "BudgetPainter", "CalibrationView", "CardView", "CodebookMicroscope", "ExpectationsView", "Explorer",
    "ForkFinder", "HistoryView", "KVCacheView", "LayerBench", "LayerBrowser", "LayerErrors", "LayerPlan",
    "LayerTable", "LedgerView", "MethodView", "ModelComparison", "PinnedView", "Recipe", "Replay", "SaliencyView",
    "SpeedView", "Squeeze", "SqueezeView", "Store", "TextComparison", "WeightInspector", "WhatIfView", "allocate",
    "calibrate", "card", "compare", "diff_cards", "error_budget", "errors", "figures", "fuse", "layer_scores", "load",
    "measure_cache", "measure_kernels", "measures", "notebook", "open_model", "pack_model", "part", "quantize",
    "quantize_model", "recipe", "recipes", "save", "sensitivity", "text", "to_transformers", "what_if",
]  # fmt: skip
CORE = [
    "workbench",
    "workbench.kernels.matmul.packed_linear",
    "workbench.kernels.matmul.dispatch",
    "workbench.presets",
    "workbench.quantizers",
    "workbench.jobs",
]
HEAVY = ["bokeh", "datashader", "holoviews", "ipywidgets", "numba", "pandas", "panel", "plotly", "transformers", "triton"]


def loaded_by(code: str) -> list[str]:
    """The heavy libraries that a fresh interpreter has loaded after running `code`."""
    report = f"{code}\nimport sys\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", report], text=True, capture_output=True, check=True).stdout.split()


def test_public_names_are_these_and_sorted() -> None:
    assert wb.__all__ == sorted(wb.__all__) == PUBLIC
    assert dir(wb) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_public_name_exists_with_a_docstring(name: str) -> None:
    assert getattr(wb, name).__doc__


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match="no attribute 'quantise'; its public names are BudgetPainter, CalibrationView, CardView"):
        _ = wb.quantise


def test_recipe_stays_a_function_after_its_module_is_imported() -> None:
    code = "import workbench as wb, workbench.recipe\nfrom workbench.recipe import Recipe\nassert callable(wb.recipe), wb.recipe"
    assert loaded_by(code) == []


@pytest.mark.parametrize("module", CORE)
def test_core_loads_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import {module}") == []


@pytest.mark.parametrize("module", ["pandas", "plotly"])
def test_loading_something_heavy_is_noticed(module: str) -> None:
    assert module in loaded_by(f"import workbench, {module}")
