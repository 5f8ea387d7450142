"""What do the weights look like? Values and levels, tails, ranges, outliers, singular values, and the matrix itself."""

from typing import Any, ClassVar

import panel as pn
from torch import Tensor

from workbench.analysis import distribution, weights
from workbench.analysis.weights import Window
from workbench.views import distribution as distribution_views
from workbench.views import weights as views
from workbench.widgets.component import Component, FigureFrame, chosen, theme
from workbench.widgets.marks import ChannelInput, RowInput
from workbench.widgets.sections import Sections

LAYER = -1  # the row slider's first stop: the whole layer
FIRST = "This layer is not quantized yet: press Quantize this layer."
QUICK = 2048  # rows or columns up to which singular values are computed without being asked for
EDGES = ("First row", "Last row", "First column", "Last column")


class WeightSection(Component):
    """A section over the selected layer: its `original` weights, and `quantized` ones where there is a result."""

    watches = ("choice", "results", "selection")

    def refresh(self) -> None:
        """Read the weights, then show them."""
        self.original = self.session.original()
        result = self.session.result
        self.quantized: Tensor | None = None if result is None else result.weight()
        self.paint()

    def paint(self) -> None:
        """Draw what was read."""
        raise NotImplementedError

    def marked(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Marked rows and columns."""
        return self.session.selection.rows, self.session.selection.channels


class HistogramSection(WeightSection):
    """How often each value occurs, with the quantizer's levels and cells."""

    def build(self) -> pn.viewable.Viewable:
        """The figure and its switches."""
        self.row = pn.widgets.IntInput(
            label="Row (−1: whole layer)", value=LAYER, start=LAYER, width=170, description="One row has exact levels of its own."
        )
        self.log = pn.widgets.Toggle(
            label="Logarithmic counts", value=False, variant="outline", width=160, margin=(26, 10, 0, 10)
        )
        self.frame = FigureFrame()
        self.row.param.watch(lambda _: self.paint(), "value")
        self.log.param.watch(lambda _: self.paint(), "value")
        return pn.Column(pn.FlexBox(self.row, self.log), self.frame, sizing_mode="stretch_width")

    def paint(self) -> None:
        """The histogram of the layer or of one row."""
        last = self.original.shape[0] - 1
        self.row.param.update(end=last, value=min(self._row(), last))
        result, row, limit = self.session.result, self._row(), self.session.shared.sketch(self.session.layer).histogram.high
        part = slice(None) if row == LAYER else slice(row, row + 1)
        before = weights.histogram(self.original[part], limit=limit)
        after = None if self.quantized is None else weights.histogram(self.quantized[part], limit=limit)
        levels = None
        if result is not None and self.quantized is not None:
            levels = weights.layer_levels(result.packed) if row == LAYER else weights.row_levels(self.quantized[row])
        scope = "this layer" if row == LAYER else f"row {row}"
        self.frame.draw(views.histogram(before, after, levels, scope=scope, log=self.log.value, theme=theme()))

    def _row(self) -> int:
        """The chosen row; an emptied field stands for the whole layer."""
        return LAYER if self.row.value is None else int(self.row.value)


class TailSection(WeightSection):
    """Quantiles of the weights against a normal and a Laplace law."""

    def build(self) -> pn.viewable.Viewable:
        """The figure."""
        self.frame = FigureFrame()
        return self.frame.view

    def paint(self) -> None:
        """Both matrices against the laws."""
        after = None if self.quantized is None else distribution.quantile_pairs(self.quantized)
        self.frame.draw(distribution_views.against_normal(distribution.quantile_pairs(self.original), after, theme=theme()))


class RangeSection(WeightSection):
    """Ranges of rows and of columns, with marked ones."""

    def build(self) -> pn.viewable.Viewable:
        """Two figures."""
        self.frames = {"row": FigureFrame(), "column": FigureFrame()}
        return pn.Column(*self.frames.values(), sizing_mode="stretch_width")

    def paint(self) -> None:
        """Both sides."""
        for (side, frame), marks in zip(self.frames.items(), self.marked(), strict=True):
            after = None if self.quantized is None else distribution.ranges(self.quantized, side)
            frame.draw(distribution_views.ranges(distribution.ranges(self.original, side), after, marks, theme=theme()))


class OutlierSection(WeightSection):
    """The largest weights and where they sit."""

    def build(self) -> pn.viewable.Viewable:
        """The figure."""
        self.frame = FigureFrame()
        return self.frame.view

    def paint(self) -> None:
        """The hundred largest."""
        rows, cols = self.original.shape
        table = distribution.largest(self.original, self.quantized)
        beyond = self.session.shared.sketch(self.session.layer).outlier_share
        self.frame.draw(distribution_views.outliers(table, (rows, cols), beyond, self.marked(), theme=theme()))


class SpectrumSection(WeightSection):
    """Singular values of the matrix, of the quantized one and of the difference."""

    def build(self) -> pn.viewable.Viewable:
        """The figure, and a button for matrices that take a while."""
        self.go = pn.widgets.Button(label="Compute", visible=False, width=120, stylesheets=[chosen()])
        self.go.on_click(lambda _: self.notices.guard(self._draw))
        self.frame = FigureFrame()
        return pn.Column(self.go, self.frame, sizing_mode="stretch_width")

    def paint(self) -> None:
        """At once where it is quick."""
        small = min(self.original.shape)
        self.go.visible = small > QUICK
        if small <= QUICK:
            self._draw()
        else:
            what = f"Singular values of a matrix with {small:,} of them take some seconds: press Compute."
            self.frame.say("Is the matrix, or its error, of low rank?", what)

    def _draw(self) -> None:
        self.frame.draw(distribution_views.singular(distribution.spectra(self.original, self.quantized), theme=theme()))


class PictureSection(WeightSection):
    """The matrix from afar and, in a window, weight by weight: by numbers, or by a box drawn on it."""

    def build(self) -> pn.viewable.Viewable:
        """What is shown, the window, the picture."""
        self.what = pn.widgets.RadioButtonGroup(
            label="Show", options=["original", "quantized", "difference"], value="original", width=330, stylesheets=[chosen()]
        )
        self.edges = [
            pn.widgets.IntInput(label=label, value=0, start=0, width=110, description="Edge of the window that is shown.")
            for label in EDGES
        ]
        self.whole = pn.widgets.Button(label="Whole matrix", width=120, margin=(26, 10, 0, 10), stylesheets=[chosen()])
        self.frame, self._filling = FigureFrame(), False
        self.shape = ("", 0, 0)  # of the layer that the window belongs to
        self.what.param.watch(lambda _: self._draw(), "value")
        for edge in self.edges:
            edge.param.watch(lambda _: self._draw(), "value")
        self.whole.on_click(lambda _: self.zoom(None))
        self.frame.plot.param.watch(self._zoomed, "relayout_data")
        return pn.Column(self.what, pn.FlexBox(*self.edges, self.whole), self.frame, sizing_mode="stretch_width")

    def paint(self) -> None:
        """The same window of the same layer, the whole matrix of another one."""
        rows, cols = self.original.shape
        if (self.session.layer, rows, cols) != self.shape:
            self.shape = (self.session.layer, rows, cols)
            self.zoom(None)
        else:
            self._draw()

    def zoom(self, window: Window | None) -> None:
        """Show a window (first and last row, first and last column), or the whole matrix."""
        rows, cols = self.original.shape
        window = window or (0, rows - 1, 0, cols - 1)
        self._filling = True
        for edge, value, last in zip(self.edges, window, (rows, rows, cols, cols), strict=True):
            edge.param.update(end=last - 1, value=int(min(max(value, 0), last - 1)))
        self._filling = False
        self._draw()

    def _window(self) -> Window:
        """The window in the fields, its edges in order; an emptied field is the matrix's edge."""
        ends = (0, self.original.shape[0] - 1, 0, self.original.shape[1] - 1)
        top, bottom, left, right = (end if edge.value is None else edge.value for edge, end in zip(self.edges, ends, strict=True))
        return min(top, bottom), max(top, bottom), min(left, right), max(left, right)

    def _draw(self) -> None:
        if self._filling:
            return
        matrices = {"original": self.original, "quantized": self.quantized}
        if self.quantized is not None:
            matrices["difference"] = self.quantized - self.original
        shown, signed = matrices.get(self.what.value), self.what.value == "difference"
        if shown is None:
            self.frame.say(f"Where is the {self.what.value}?", FIRST)
            return
        limit = None if signed else float(self.original.abs().max())
        image = weights.raster(shown, signed=signed, window=self._window())
        self.frame.draw(views.raster(image, self.what.value, limit, self.marked(), theme=theme()))

    def _zoomed(self, event: Any) -> None:
        """A box drawn on the picture becomes the window; a double click shows the whole matrix."""
        data: dict[str, Any] = event.new or {}
        edges: list[Any] = [data.get(f"{axis}.range[{end}]") for axis in ("yaxis", "xaxis") for end in (0, 1)]
        if any(data.get(f"{axis}.autorange") for axis in ("xaxis", "yaxis")):
            self.zoom(None)
        elif all(edge is not None for edge in edges):
            bottom, top, left, right = (round(float(edge)) for edge in edges)
            self.zoom((min(top, bottom), max(top, bottom), min(left, right), max(left, right)))


class WeightInspector(Sections):
    """The selected layer's weights from six sides; marked rows and channels are marked in all of them."""

    kinds: ClassVar = {
        "Histogram": HistogramSection,
        "Tails": TailSection,
        "Ranges": RangeSection,
        "Outliers": OutlierSection,
        "Spectrum": SpectrumSection,
        "Picture": PictureSection,
    }

    def above(self) -> list[pn.viewable.Viewable]:
        """Marks above all sections."""
        return [pn.FlexBox(self.part(RowInput).view, self.part(ChannelInput).view)]
