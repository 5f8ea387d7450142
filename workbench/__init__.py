"""Workbench for extreme low-bit quantization of language models: open, inspect, quantize, compare, save, run.

    import workbench as wb

The names below are the public surface. Most are imported on first use, so that `import workbench` stays quick (it loads no
torch) and a user of the core alone never loads transformers, pandas, plotly, numba or panel.
"""

import importlib
from typing import TYPE_CHECKING, Any

from workbench import errors, registry
from workbench.huge_pages import use_huge_pages
from workbench.import_hook import run_when_imported
from workbench.interrupts import defer_interrupts
from workbench.recipe import LayerPlan, Recipe  # before `recipe` below, which takes the place of the module of that name

from workbench.presets import recipe  # isort: skip
from workbench.presets import tabulate_presets as recipes  # isort: skip
from workbench.registry import make as part

if TYPE_CHECKING:
    from workbench import figures, measures
    from workbench.analysis.decisions.error_budget import error_budget
    from workbench.analysis.decisions.layer_scores import layer_scores
    from workbench.analysis.decisions.quant_card_diff import diff_cards
    from workbench.analysis.decisions.squeeze import Squeeze
    from workbench.analysis.predictions.compare import compare
    from workbench.analysis.predictions.fork import ForkFinder
    from workbench.analysis.predictions.kv_cache import measure_cache
    from workbench.analysis.predictions.sensitivity import sensitivity
    from workbench.analysis.predictions.suffix_replay import Replay
    from workbench.analysis.predictions.what_if import what_if
    from workbench.artifact import load, save
    from workbench.artifact.quantized_copy import pack_model
    from workbench.artifact.transformers_model import to_transformers
    from workbench.bench import measure_kernels
    from workbench.calibration import calibrate
    from workbench.exchange.takeover import read_imatrix, take_over
    from workbench.exchange.writing import export
    from workbench.models import fuse, open_model
    from workbench.models.text import text
    from workbench.quantizers import quantize, quantize_model, refine_model
    from workbench.quantizers.allocation import allocate
    from workbench.store import Store
    from workbench.views.decisions.quant_card import card
    from workbench.widgets import Explorer, notebook
    from workbench.widgets.decisions.bit_ledger import LedgerView
    from workbench.widgets.decisions.pareto_painter import BudgetPainter
    from workbench.widgets.decisions.quant_card import CardView
    from workbench.widgets.decisions.scaling_law import ExpectationsView
    from workbench.widgets.decisions.squeeze import SqueezeView
    from workbench.widgets.method.calibration_mixture import CalibrationView
    from workbench.widgets.method.codebook_microscope import CodebookMicroscope
    from workbench.widgets.method.method_view import MethodView
    from workbench.widgets.predictions.attention_raster import AttentionRaster
    from workbench.widgets.predictions.cache_raster import CacheRaster
    from workbench.widgets.predictions.generation import TextComparison
    from workbench.widgets.predictions.kv_cache import KVCacheView
    from workbench.widgets.predictions.layer_errors import LayerErrors
    from workbench.widgets.predictions.layer_speed import SpeedView
    from workbench.widgets.predictions.model_comparison import ModelComparison
    from workbench.widgets.predictions.pinned import PinnedView
    from workbench.widgets.predictions.what_if import WhatIfView
    from workbench.widgets.shell.history import HistoryView
    from workbench.widgets.shell.layer_bench import LayerBench
    from workbench.widgets.shell.layer_browser import LayerBrowser, LayerTable
    from workbench.widgets.shell.recipe_gallery import RecipeGallery
    from workbench.widgets.shell.run_bar import RunBar
    from workbench.widgets.weights.channel_saliency import SaliencyView
    from workbench.widgets.weights.channel_scatter import ChannelScatter
    from workbench.widgets.weights.weight_inspector import WeightInspector
    from workbench.widgets.weights.weight_raster import WeightRaster

__version__ = "0.1.0"

__all__ = [
    "AttentionRaster",
    "BudgetPainter",
    "CacheRaster",
    "CalibrationView",
    "CardView",
    "ChannelScatter",
    "CodebookMicroscope",
    "ExpectationsView",
    "Explorer",
    "ForkFinder",
    "HistoryView",
    "KVCacheView",
    "LayerBench",
    "LayerBrowser",
    "LayerErrors",
    "LayerPlan",
    "LayerTable",
    "LedgerView",
    "MethodView",
    "ModelComparison",
    "PinnedView",
    "Recipe",
    "RecipeGallery",
    "Replay",
    "RunBar",
    "SaliencyView",
    "SpeedView",
    "Squeeze",
    "SqueezeView",
    "Store",
    "TextComparison",
    "WeightInspector",
    "WeightRaster",
    "WhatIfView",
    "allocate",
    "calibrate",
    "card",
    "compare",
    "diff_cards",
    "error_budget",
    "errors",
    "export",
    "figures",
    "fuse",
    "layer_scores",
    "load",
    "measure_cache",
    "measure_kernels",
    "measures",
    "notebook",
    "open_model",
    "pack_model",
    "part",
    "quantize",
    "quantize_model",
    "read_imatrix",
    "recipe",
    "recipes",
    "refine_model",
    "save",
    "sensitivity",
    "take_over",
    "text",
    "to_transformers",
    "what_if",
]

_HOMES = {
    "AttentionRaster": "workbench.widgets.predictions.attention_raster",
    "BudgetPainter": "workbench.widgets.decisions.pareto_painter",
    "CacheRaster": "workbench.widgets.predictions.cache_raster",
    "CalibrationView": "workbench.widgets.method.calibration_mixture",
    "CardView": "workbench.widgets.decisions.quant_card",
    "ChannelScatter": "workbench.widgets.weights.channel_scatter",
    "CodebookMicroscope": "workbench.widgets.method.codebook_microscope",
    "ExpectationsView": "workbench.widgets.decisions.scaling_law",
    "Explorer": "workbench.widgets",
    "ForkFinder": "workbench.analysis.predictions.fork",
    "HistoryView": "workbench.widgets.shell.history",
    "KVCacheView": "workbench.widgets.predictions.kv_cache",
    "LayerBench": "workbench.widgets.shell.layer_bench",
    "LayerBrowser": "workbench.widgets.shell.layer_browser",
    "LayerErrors": "workbench.widgets.predictions.layer_errors",
    "LayerTable": "workbench.widgets.shell.layer_browser",
    "LedgerView": "workbench.widgets.decisions.bit_ledger",
    "MethodView": "workbench.widgets.method.method_view",
    "ModelComparison": "workbench.widgets.predictions.model_comparison",
    "PinnedView": "workbench.widgets.predictions.pinned",
    "RecipeGallery": "workbench.widgets.shell.recipe_gallery",
    "Replay": "workbench.analysis.predictions.suffix_replay",
    "RunBar": "workbench.widgets.shell.run_bar",
    "SaliencyView": "workbench.widgets.weights.channel_saliency",
    "SpeedView": "workbench.widgets.predictions.layer_speed",
    "Squeeze": "workbench.analysis.decisions.squeeze",
    "SqueezeView": "workbench.widgets.decisions.squeeze",
    "Store": "workbench.store",
    "TextComparison": "workbench.widgets.predictions.generation",
    "WeightInspector": "workbench.widgets.weights.weight_inspector",
    "WeightRaster": "workbench.widgets.weights.weight_raster",
    "WhatIfView": "workbench.widgets.predictions.what_if",
    "allocate": "workbench.quantizers.allocation",
    "calibrate": "workbench.calibration",
    "card": "workbench.views.decisions.quant_card",
    "compare": "workbench.analysis.predictions.compare",
    "diff_cards": "workbench.analysis.decisions.quant_card_diff",
    "error_budget": "workbench.analysis.decisions.error_budget",
    "export": "workbench.exchange.writing",
    "fuse": "workbench.models",
    "layer_scores": "workbench.analysis.decisions.layer_scores",
    "load": "workbench.artifact",
    "measure_cache": "workbench.analysis.predictions.kv_cache",
    "measure_kernels": "workbench.bench",
    "notebook": "workbench.widgets",
    "open_model": "workbench.models",
    "pack_model": "workbench.artifact.quantized_copy",
    "quantize": "workbench.quantizers",
    "quantize_model": "workbench.quantizers",
    "read_imatrix": "workbench.exchange.takeover",
    "refine_model": "workbench.quantizers",
    "save": "workbench.artifact",
    "sensitivity": "workbench.analysis.predictions.sensitivity",
    "take_over": "workbench.exchange.takeover",
    "text": "workbench.models.text",
    "to_transformers": "workbench.artifact.transformers_model",
    "what_if": "workbench.analysis.predictions.what_if",
}
_MODULES = ("figures", "measures")  # public, and imported on first use too


if not TYPE_CHECKING:  # a type checker knows the names above, and says where one does not exist

    def __getattr__(name: str) -> Any:
        """Import a public name from its home on first use."""
        if name in _MODULES:
            return importlib.import_module(f"workbench.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module 'workbench' has no attribute {name!r}; its public names are {', '.join(__all__)}.")
        with defer_interrupts():
            value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__


def _register_with_transformers() -> None:
    importlib.import_module("workbench.artifact.transformers_plugin").register()


registry.add_home("workbench.presets", "preset")
registry.add_home("workbench.kernels.formats", "format")
registry.add_home(
    "workbench.quantizers",
    *("transform", "split", "coder", "assignment", "correction", "activations", "refinement", "allocation", "kv"),
)
use_huge_pages()  # torch reads it at its first tensor
run_when_imported("transformers.quantizers.auto", _register_with_transformers)  # so that it loads folders that wb.save wrote
