"""Panel in a notebook, without a network: every script inside the notebook, loaded once."""

import panel as pn

EXTENSIONS = ("plotly", "tabulator")
_loaded = False


def notebook() -> None:
    """Prepare this notebook to show components offline; called by the first component, harmless on a server.

    A kernel's first `pn.extension` decides where scripts come from, and a second one cannot repair it: call this before any
    other code that uses Panel.
    """
    global _loaded  # noqa: PLW0603  a kernel is prepared once
    if _loaded or pn.state.curdoc is not None:
        return
    pn.extension(*EXTENSIONS, inline=True)
    _loaded = True
