"""Panel without a network: every script is inside the notebook, and a served page loads no external style sheet."""

from functools import cache
from typing import Any

import panel as pn
from panel.reactive import Reactive

from workbench.widgets.panel_patches.comm_main_thread import hear_in_main_thread

NEEDED_WITH = {"panel": "1.9"}  # the newest releases that were seen to need this

EXTENSIONS = ("plotly", "tabulator")
_loaded = False


def notebook() -> None:
    """Prepare this notebook, or the page that is served, to show components offline; a component on its own calls it.

    A kernel's first `pn.extension` decides where scripts come from, and a second one cannot repair it: call this before any
    other code that uses Panel.

    Example:
        >>> import workbench as wb
        >>> wb.notebook()
    """
    global _loaded  # noqa: PLW0603  a kernel is prepared once
    if pn.state.curdoc is not None:
        pn.extension(*EXTENSIONS)
        keep_styles_local()
        return
    if _loaded:
        return
    hear_in_main_thread()
    pn.extension(*EXTENSIONS, inline=True)
    _loaded = True


@cache
def keep_styles_local() -> None:
    """Keep a served page's styles on its own host.

    What is not shown, such as a hidden tab, has no document, and when it is updated Panel 1.9 takes that for a page that may
    load from its CDN, for the visible parts too. It belongs to the document at hand.
    """
    original = Reactive._get_properties

    def properties(self: Reactive, doc: Any) -> dict[str, Any]:
        return original(self, doc or pn.state.curdoc)

    Reactive._get_properties = properties  # type: ignore[method-assign]
