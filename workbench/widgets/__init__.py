"""Components of a session: each works in a notebook, in an app, or as an ipywidget by `.ipywidget()`."""

from workbench.widgets.panel_patches.offline_resources import notebook
from workbench.widgets.shell.explorer import Explorer

__all__ = ["Explorer", "notebook"]
