"""Linked components in several cells or ipywidgets: a component may be changed from another document than its own.

Panel (1.9) takes style sheets from the document whose event it handles. A component that changes another one, drawn elsewhere,
would give it a style sheet of its own, which Bokeh refuses: "Models must be owned by only a single document". Without a document
each gets its own, as where the code of a cell changes something.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from panel.io.state import state

NEEDED_WITH = {"panel": "1.9"}  # the newest releases that were seen to need this


@contextmanager
def leave_cell_document() -> Iterator[None]:
    """Leave the document of a notebook's cell whose event is being handled; a served page stays in its only one."""
    document = state.curdoc
    if document is None or document.session_context is not None:
        yield
        return
    token = state._curdoc.set(None)
    try:
        yield
    finally:
        state._curdoc.reset(token)
