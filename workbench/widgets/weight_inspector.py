"""What do the weights look like? Histogram with the quantizer's levels, and the matrix from afar."""

import panel as pn
from torch import Tensor

from workbench.analysis import weights
from workbench.views import weights as views
from workbench.widgets.component import Component, FigureFrame, chosen, theme

LAYER = -1  # the row slider's first stop: the whole layer


class WeightInspector(Component):
    """The selected layer's weights: how often each value occurs, and where the large ones sit."""

    def build(self) -> pn.viewable.Viewable:
        """Two figures and their switches."""
        self.row = pn.widgets.IntInput(label="Row (−1: whole layer)", value=LAYER, start=LAYER, width=170)
        self.log = pn.widgets.Toggle(
            label="Logarithmic counts", value=False, variant="outline", width=160, margin=(26, 10, 0, 10)
        )
        self.what = pn.widgets.RadioButtonGroup(
            label="Show", options=["original", "quantized", "difference"], value="original", width=330, stylesheets=[chosen()]
        )
        self.histogram, self.raster = FigureFrame(), FigureFrame()
        self.row.param.watch(lambda _: self._histogram(), "value")
        self.log.param.watch(lambda _: self._histogram(), "value")
        self.what.param.watch(lambda _: self._raster(), "value")
        controls = pn.FlexBox(self.row, self.log)
        return pn.Column(controls, self.histogram, self.what, self.raster, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """Both figures for the selected layer and its result."""
        self.original = self.session.original()
        result = self.session.result
        self.quantized = None if result is None else result.weight()
        last = self.original.shape[0] - 1
        self.row.param.update(end=last, value=min(self._row(), last))
        self._histogram()
        self._raster()

    def _histogram(self) -> None:
        result, row, limit = self.session.result, self._row(), self.session.shared.sketch(self.session.layer).histogram.high
        part = slice(None) if row == LAYER else slice(row, row + 1)
        before = weights.histogram(self.original[part], limit=limit)
        after = None if self.quantized is None else weights.histogram(self.quantized[part], limit=limit)
        levels = None
        if result is not None and self.quantized is not None:
            levels = weights.layer_levels(result.packed) if row == LAYER else weights.row_levels(self.quantized[row])
        scope = "this layer" if row == LAYER else f"row {row}"
        self.histogram.draw(views.histogram(before, after, levels, scope=scope, log=self.log.value, theme=theme()))

    def _row(self) -> int:
        """The chosen row; an emptied field stands for the whole layer."""
        return LAYER if self.row.value is None else int(self.row.value)

    def _raster(self) -> None:
        shown = self._shown(self.what.value)
        if shown is None:
            self.raster.say(f"Where is the {self.what.value}?", "This layer is not quantized yet: press Quantize this layer.")
            return
        limit = float(self.original.abs().max()) if self.what.value != "difference" else None
        image = weights.raster(shown, signed=self.what.value == "difference")
        self.raster.draw(views.raster(image, self.what.value, limit, theme=theme()))

    def _shown(self, what: str) -> Tensor | None:
        if what == "original":
            return self.original
        if self.quantized is None:
            return None
        return self.quantized if what == "quantized" else self.quantized - self.original
