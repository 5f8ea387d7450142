"""The matrix as an image: the whole matrix, and single weights in a window."""

from collections.abc import Callable
from typing import Any

import panel as pn

from workbench.analysis.weights import weight_sketch
from workbench.analysis.weights.weight_sketch import Raster, Window
from workbench.views.weights import matrix as views
from workbench.widgets.base.component import FigureFrame, choose_theme, render_chosen_css
from workbench.widgets.base.controls import BESIDE
from workbench.widgets.weights.weight_section import WeightSection

QUANTIZE_FIRST = "This layer is not quantized yet: press Quantize this layer."
EDGES = ("First row", "Last row", "First column", "Last column")


class PictureSection(WeightSection):
    """The matrix from afar and, in a window, weight by weight: by numbers, or by a box drawn on it."""

    def layout(self) -> pn.viewable.Viewable:
        """What is shown, the window, the picture."""
        self.what = pn.widgets.RadioButtonGroup(
            label="Show",
            options=["original", "quantized", "difference"],
            value="original",
            width=330,
            stylesheets=[render_chosen_css()],
        )
        self.edges = [
            pn.widgets.IntInput(label=label, value=0, start=0, width=110, description="Edge of the window to show.")
            for label in EDGES
        ]
        self.show_all = pn.widgets.Button(label="Whole matrix", width=120, margin=BESIDE, stylesheets=[render_chosen_css()])
        self.frame, self._filling = FigureFrame(), False
        self.shape = ("", 0, 0)  # of the layer that the window belongs to
        self._shown: tuple[str, Raster] | None = None  # what it was made from, and the picture
        self.what.param.watch(lambda _: self._again(), "value")
        for edge in self.edges:
            edge.param.watch(lambda _: self._again(), "value")
        self.show_all.on_click(lambda _: self.zoom(None))
        self.frame.plot.param.watch(self._zoomed, "relayout_data")
        return pn.Column(self.what, pn.FlexBox(*self.edges, self.show_all), self.frame, sizing_mode="stretch_width")

    def paint(self) -> None:
        """The same window of the same layer, the whole matrix of another one."""
        rows, cols = self.original.shape
        if (self.session.layer, rows, cols) != self.shape:
            self.shape = (self.session.layer, rows, cols)
            self.zoom(None)
        else:
            self._again()

    def zoom(self, window: Window | None) -> None:
        """Show a window (first and last row, first and last column), or the whole matrix."""
        rows, cols = self.original.shape
        window = window or (0, rows - 1, 0, cols - 1)
        self._filling = True
        for edge, value, last in zip(self.edges, window, (rows, rows, cols, cols), strict=True):
            edge.param.update(end=last - 1, value=int(min(max(value, 0), last - 1)))
        self._filling = False
        self._again()

    def _window(self) -> Window:
        """The window in the fields, its edges in order; an emptied field is the matrix's edge."""
        ends = (0, self.original.shape[0] - 1, 0, self.original.shape[1] - 1)
        top, bottom, left, right = (end if edge.value is None else edge.value for edge, end in zip(self.edges, ends, strict=True))
        return min(top, bottom), max(top, bottom), min(left, right), max(left, right)

    def _again(self) -> None:
        if not self._filling:
            super().paint()

    def computations(self) -> list[Callable[[], Any]]:
        """The picture that is asked for, unless it is the one on show, and the largest magnitude of the original."""
        what, window, before, after = self.what.value, self._window(), self.original, self.quantized
        shared, layer, last = self.session.shared, self.session.layer, self._shown

        def picture() -> tuple[str, Raster] | None:
            if what != "original" and after is None:
                return None
            others = "" if what == "original" or after is None else after.content_key
            table_key = f"{before.content_key} {others} {what} {window}"
            if last is not None and last[0] == table_key:
                return last
            shown = before.weight if what == "original" or after is None else after.weight
            if what == "difference":
                shown = shown - before.weight.float()
            return table_key, weight_sketch.rasterize_weight(shown, signed=what == "difference", window=window)

        return [picture, lambda: shared.sketch(layer).absmax]

    def draw(self, shown: tuple[str, Raster] | None, largest: float) -> None:
        """The picture; original and quantized in the same colours."""
        self._shown = shown
        what = self.what.value
        if shown is None:
            self.frame.say(f"Where is the {what}?", QUANTIZE_FIRST)
            return
        limit = None if what == "difference" else largest
        self.frame.draw(views.draw_raster(shown[1], what, limit, self.marked(), theme=choose_theme()))

    def _zoomed(self, event: Any) -> None:
        """A box drawn on the picture becomes the window; a double click shows the whole matrix."""
        data: dict[str, Any] = event.new or {}
        edges: list[Any] = [data.get(f"{axis}.range[{end}]") for axis in ("yaxis", "xaxis") for end in (0, 1)]
        if any(data.get(f"{axis}.autorange") for axis in ("xaxis", "yaxis")):
            self.zoom(None)
        elif all(edge is not None for edge in edges):
            bottom, top, left, right = (round(float(edge)) for edge in edges)
            self.zoom((min(top, bottom), max(top, bottom), min(left, right), max(left, right)))
