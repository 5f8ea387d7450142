"""Saved models beside the original: `panel serve apps/compare.py --args MODEL DIR...`.

Without folders the stops of the squeeze slider that have been built are compared, without a model those of the built-in one.
"""

import sys

import panel as pn

from workbench.session import Session
from workbench.widgets.predictions.model_comparison import ModelComparison
from workbench.widgets.shell.page import open_shared_model, visit


def app(source: str, *folders: str) -> pn.viewable.Viewable:
    """The whole page: a model and the folders of its quantized versions."""
    return visit(lambda: ModelComparison(Session(open_shared_model(source)), folders=folders))


if pn.state.served:
    named = sys.argv[1:] or ["builtin"]
    app(*named).servable(title="workbench · compare")
