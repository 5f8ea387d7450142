"""Workbench for extreme low-bit quantization of language models: open, inspect, quantize, compare, save, run.

    import workbench as wb

The names below are the public surface. Most are imported on first use, so that `import workbench` stays quick and a user of
the core alone never loads transformers, pandas, plotly, numba or panel.
"""

import importlib
from typing import TYPE_CHECKING, Any

from workbench import errors
from workbench.import_hook import when_imported
from workbench.interrupts import deferred
from workbench.recipe import LayerPlan, Recipe  # before `recipe` below, which takes the place of the module of that name

from workbench.presets import recipe  # isort: skip
from workbench.registry import make as part

if TYPE_CHECKING:
    from workbench.analysis.decisions.error_budget import error_budget
    from workbench.analysis.decisions.layer_scores import layer_scores
    from workbench.analysis.predictions.compare import compare
    from workbench.analysis.predictions.fork import ForkFinder
    from workbench.analysis.predictions.sensitivity import sensitivity
    from workbench.analysis.predictions.suffix_replay import Replay
    from workbench.analysis.predictions.what_if import what_if
    from workbench.artifact import load, save
    from workbench.artifact.transformers_model import to_transformers
    from workbench.calibration import calibrate
    from workbench.models import fuse, open_model
    from workbench.models.text import text
    from workbench.quantizers import quantize, quantize_model
    from workbench.quantizers.allocation import allocate
    from workbench.views.decisions.quant_card import card
    from workbench.widgets import Explorer, notebook

__version__ = "0.1.0"

__all__ = [
    "Explorer",
    "ForkFinder",
    "LayerPlan",
    "Recipe",
    "Replay",
    "allocate",
    "calibrate",
    "card",
    "compare",
    "error_budget",
    "errors",
    "fuse",
    "layer_scores",
    "load",
    "notebook",
    "open_model",
    "part",
    "quantize",
    "quantize_model",
    "recipe",
    "save",
    "sensitivity",
    "text",
    "to_transformers",
    "what_if",
]

_HOMES = {
    "Explorer": "workbench.widgets",
    "ForkFinder": "workbench.analysis.predictions.fork",
    "Replay": "workbench.analysis.predictions.suffix_replay",
    "allocate": "workbench.quantizers.allocation",
    "calibrate": "workbench.calibration",
    "card": "workbench.views.decisions.quant_card",
    "compare": "workbench.analysis.predictions.compare",
    "error_budget": "workbench.analysis.decisions.error_budget",
    "fuse": "workbench.models",
    "layer_scores": "workbench.analysis.decisions.layer_scores",
    "load": "workbench.artifact",
    "notebook": "workbench.widgets",
    "open_model": "workbench.models",
    "quantize": "workbench.quantizers",
    "quantize_model": "workbench.quantizers",
    "save": "workbench.artifact",
    "sensitivity": "workbench.analysis.predictions.sensitivity",
    "text": "workbench.models.text",
    "to_transformers": "workbench.artifact.transformers_model",
    "what_if": "workbench.analysis.predictions.what_if",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}; its public names are {', '.join(__all__)}.")
    with deferred():
        value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


def _register_with_transformers() -> None:
    importlib.import_module("workbench.artifact.transformers_plugin").register()


when_imported("transformers.quantizers.auto", _register_with_transformers)  # so that it loads folders that wb.save wrote
