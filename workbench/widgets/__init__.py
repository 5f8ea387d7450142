"""Components over the session: each shows in a notebook, composes into an app, and becomes an ipywidget by `.ipywidget()`."""

from workbench.widgets.explorer import Explorer
from workbench.widgets.offline import notebook

__all__ = ["Explorer", "notebook"]
