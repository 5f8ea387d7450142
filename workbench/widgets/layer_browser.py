"""Which layer? The layer map, a menu that the keyboard reaches, and the whole table."""

from typing import Any

import panel as pn

from workbench.analysis import columns
from workbench.views import layers as views
from workbench.widgets.component import Component, FigureFrame, data_table, readable, theme

COLOURS = ("parameters", "std", "absmax", "kurtosis", "outlier_share", "bits_per_weight", "relative_error", "output_error")


class LayerBrowser(Component):
    """The model's layers as a grid of block × matrix, coloured by a column; a click or the menu selects one."""

    def build(self) -> pn.viewable.Viewable:
        """Menu, colour choice, map."""
        self.menu = pn.widgets.Select(label="Layer", options=self.session.model.layer_names, sizing_mode="stretch_width")
        self.colour = pn.widgets.Select(
            label="Colour by", options={columns.label(c): c for c in COLOURS}, value="kurtosis", sizing_mode="stretch_width"
        )
        self.frame = FigureFrame()
        self.frame.plot.param.watch(self._clicked, "click_data")
        self.menu.param.watch(lambda event: self.live.choose(lambda: self.session.select(event.new)), "value")
        self.colour.param.watch(lambda _: self.refresh(), "value")
        return pn.Column(self.menu, self.colour, self.frame, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """Colours of the latest results and the frame around the selected layer."""
        self.menu.value = self.session.layer
        self.frame.draw(views.grid(self.session.layer_table(), self.colour.value, self.session.layer, theme=theme()))

    def _clicked(self, event: Any) -> None:
        points = (event.new or {}).get("points") or []
        name = self._named(str(points[0].get("x")), str(points[0].get("y"))) if points else None
        if name in self.session.model.layer_names:
            self.live.choose(lambda: self.session.select(name))

    def _named(self, matrix: str, block: str) -> str | None:
        """The layer in one cell, by its labels: Panel cannot read the `customdata` of a heat map."""
        if self.frame.figure is None:
            return None
        heat = self.frame.figure.plot["data"][0]
        if matrix not in heat["x"] or block not in heat["y"]:
            return None
        return heat["customdata"][heat["y"].index(block)][heat["x"].index(matrix)][0]


class LayerTable(Component):
    """All layers with their numbers, sortable."""

    def build(self) -> pn.viewable.Viewable:
        """The table, as it stands at first."""
        self.table = data_table(self.session.layer_table())
        return pn.Column(self.table, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """New numbers in the same table, so that its order and page stay."""
        self.table.value = readable(self.session.layer_table())
