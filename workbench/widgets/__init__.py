"""Components over the session: each shows in a notebook, composes into an app, and becomes an ipywidget by `.ipywidget()`."""

from workbench.widgets.panel_patches.offline_resources import notebook
from workbench.widgets.shell.explorer import Explorer

__all__ = ["Explorer", "notebook"]
