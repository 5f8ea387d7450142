"""The explorer: all components of one session, for a served page or a notebook cell."""

from collections.abc import Sequence
from html import escape
from typing import Any

import panel as pn

from workbench.quantized import QuantizedLayer
from workbench.recipe import Recipe
from workbench.views.layer_names import label_layer
from workbench.widgets.base.component import Component
from workbench.widgets.base.live import Subject
from workbench.widgets.base.presentation import present
from workbench.widgets.base.responsive import build_responsive_column
from workbench.widgets.shell.layer_bench import LayerBench
from workbench.widgets.shell.layer_browser import LayerBrowser
from workbench.widgets.shell.tabs import STRIPS, TABS, Kinds, Tabs
from workbench.widgets.shell.toolbar import Toolbar


class Explorer(Component):
    """Open a model, look at a layer, quantize it, see what that did: all components around one session.

    Args:
        model: A model from `wb.open_model` or its name, a session, what `wb.quantize` or `wb.quantize_model` made, or another
            component, which then is linked.
        layer: The layer to select, or a result for one of the model's layers; the first layer when absent.
        threaded: Whether jobs run in a thread of their own.
        tabs: The components below the tabs, by section and title, where that is not all of them.
        strips: The components above the tabs.
        front: The title of the tab that is looked at first.

    Raises:
        WorkbenchError: For a subject of another type.
        ModelError: For a model that cannot be opened, or has no such layer.

    Example:
        >>> import workbench as wb
        >>> explorer = wb.Explorer("builtin")
        >>> explorer.recipe.code()
        "wb.recipe('rtn')"
        >>> explorer.session.layer
        'model.layers.0.self_attn.q_proj'
    """

    waits = False
    watches = ("choice", "results", "selection")

    def __init__(
        self,
        model: Subject = "builtin",
        layer: str | QuantizedLayer | None = None,
        *,
        threaded: bool = True,
        tabs: Kinds = TABS,
        strips: Sequence[type[Component]] = STRIPS,
        front: str = "",
    ) -> None:
        self._kinds, self._strips, self._front = tabs, strips, front
        super().__init__(model, layer, threaded=threaded)

    @property
    def recipe(self) -> Recipe:
        """The recipe on the bench."""
        return self.bench.recipe

    @property
    def result(self) -> Any:
        """What it made of the selected layer, or None."""
        return self.bench.result

    @property
    def code(self) -> str:
        """Python that does the same."""
        return self.bench.code

    def build(self) -> pn.viewable.Viewable:
        """Toolbar and strips above; layers left, figures in the middle, bench right."""
        self.toolbar = self.part(Toolbar)
        self.heading = pn.pane.HTML("", margin=(0, 10), sizing_mode="stretch_width")
        self.strips = [self.part(kind) for kind in self._strips]
        self.layers, self.bench = self.part(LayerBrowser), self.part(LayerBench)
        self.tabs = Tabs(self, self._kinds, self._front)
        left, right = build_responsive_column(self.layers, "layers"), build_responsive_column(self.bench, "bench")
        centre = build_responsive_column(pn.Column(self.heading, self.tabs, sizing_mode="stretch_width"), "centre")
        self.toolbar.param.watch(lambda event: self._present(event.new), "presented")
        above = [build_responsive_column(strip, "wide strip" if strip.is_wide else "strip") for strip in self.strips]
        parts = [*self.strips, self.layers]
        self.hidden_columns = [centre, right]  # of a presented page
        self.hidden_columns += [column for part, column in zip(parts, [*above, left], strict=True) if not part.is_presented]
        rows = [row for row in (above, [left, centre, right]) if row]
        boxes = [pn.FlexBox(*row, gap="8px", margin=(0, 0, 8, 0), sizing_mode="stretch_width") for row in rows]
        return pn.Column(self.toolbar, *boxes, sizing_mode="stretch_width")

    def _present(self, on: bool) -> None:
        """Before a room there are the slider, the texts and the map alone, in large type and as wide as the page."""
        present(on)
        for column in self.hidden_columns:
            column.visible = not on
        for part in (*self.strips, self.layers):
            if part.is_presented:
                part.present(on)
        self.live.announce("choice")

    def bring(self, title: str) -> Any:
        """Bring a tab to the front, by its title; its component."""
        self.tabs.front = title
        return self.tabs[title]

    def refresh(self) -> None:
        """The title line of the selected layer, and what became of the marks of the one before."""
        layer = self.session.model.layers().set_index("name").loc[self.session.layer]
        self.heading.object = (
            f"<h1 style='font-size:1.3rem;margin:0;overflow-wrap:anywhere'>{escape(label_layer(layer))} "
            f"<small style='font-weight:normal'>{layer['rows']:,} × {layer['cols']:,} · {escape(self.session.layer)}</small></h1>"
            f"<p style='margin:0;font-size:0.8rem' aria-live='polite'>{escape(str(self.session.carried))}</p>"
        )
