"""The explorer as a Panel app: `panel serve apps/explorer.py [--args MODEL]`; the built-in model when none is named."""

import sys

import panel as pn

from workbench.widgets.shell.page import build_explorer_page


def app(source: str) -> pn.viewable.Viewable:
    """The whole page on one model."""
    return build_explorer_page(source)


if pn.state.served:
    named = sys.argv[1] if len(sys.argv) > 1 else "builtin"
    app(named).servable(title="workbench")
