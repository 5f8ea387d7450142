"""The explorer as a Panel app: `panel serve apps/explorer.py [--args MODEL]`; the built-in model when none is named.

`workbench explore MODEL` names the model by the environment variable WORKBENCH_MODEL.
"""

import os
import sys

import panel as pn

from workbench.widgets.page import page


def app(source: str) -> pn.viewable.Viewable:
    """The whole page on one model."""
    return page(source)


if pn.state.served:
    named = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("WORKBENCH_MODEL", "builtin")
    app(named).servable(title="workbench")
