"""What do the weights look like? Values and levels, tails, ranges, outliers, singular values, and the matrix itself."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import pandas as pd
import panel as pn
from torch import Tensor

from workbench.analysis.weights import cached_tables, distribution, weight_sketch
from workbench.analysis.weights.weight_sketch import Histogram, Levels
from workbench.views.weights import compared_histogram as compared_views
from workbench.views.weights import distribution as distribution_views
from workbench.views.weights import matrix as views
from workbench.widgets.base.component import FigureFrame, choose_theme, render_chosen_css
from workbench.widgets.base.controls import BESIDE, scale_width
from workbench.widgets.base.marks import ChannelInput, RowInput
from workbench.widgets.base.sections import Sections
from workbench.widgets.weights.channel_scatter import ChannelScatter
from workbench.widgets.weights.weight_raster import WeightRaster
from workbench.widgets.weights.weight_section import WeightSection

LAYER = -1  # the row slider's first stop: the whole layer
ALONE, ERROR = "spectrum", "spectrum with the error"  # names of tables
QUICK = 2048  # rows or columns up to which singular values are computed without being asked for


class HistogramSection(WeightSection):
    """How often each value occurs, with the quantizer's levels and cells."""

    def layout(self) -> pn.viewable.Viewable:
        """The figure, and its switches below it."""
        self.row = pn.widgets.IntInput(
            label="Row (−1: whole layer)",
            value=LAYER,
            start=LAYER,
            width=170,
            description="A single row shows its own exact levels.",
        )
        self.log = pn.widgets.Toggle(
            label="Logarithmic counts", value=False, variant="outline", styles=scale_width(160), margin=BESIDE
        )
        self.frame = FigureFrame()
        self.row.param.watch(lambda _: self.paint(), "value")
        self.log.param.watch(lambda _: self.paint(), "value")
        return pn.Column(self.frame, pn.FlexBox(self.row, self.log), sizing_mode="stretch_width")

    def computations(self) -> list[Callable[[], Any]]:
        """Counts of the layer or of one row, before and after, and the levels."""
        last = self.original.shape[0] - 1
        self.row.param.update(end=last, value=min(self._row(), last))
        row, layer, sample = self._row(), self.session.layer, self.session.preview
        result, beside = self.session.compared.shown, self.session.compared.reference
        before, after, shared = self.original, self.quantized, self.session.shared

        def counts() -> Histogram:
            histogram = shared.sketch(layer).histogram
            return histogram if row == LAYER else weight_sketch.compute_histogram(before.weight[row], limit=histogram.high)

        def quantized() -> tuple[Histogram, Levels | None] | None:
            limit = shared.sketch(layer).histogram.high
            if after is not None and result is not None:
                if row != LAYER:
                    return weight_sketch.compute_histogram(after.weight[row], limit=limit), weight_sketch.find_row_levels(
                        after.weight[row]
                    )
                return cached_tables.load_histogram(after, limit), cached_tables.load_levels(after, result.packed)
            if sample is None or row != LAYER:
                return None
            some = weight_sketch.compute_histogram(sample.result.weight(), limit=limit)
            return some.times(sample.row_count / len(sample.rows)), weight_sketch.find_layer_levels(sample.result.packed)

        def compared() -> tuple[Histogram, Levels | None] | None:
            if beside is None:
                return None
            portrait, limit = self.session.portrait_of(beside), shared.sketch(layer).histogram.high
            if row == LAYER:
                return cached_tables.load_histogram(portrait, limit), cached_tables.load_levels(portrait, beside.packed)
            weights = portrait.weight[row]
            return weight_sketch.compute_histogram(weights, limit=limit), weight_sketch.find_row_levels(weights)

        return [counts, quantized, compared]

    def draw(
        self,
        before: Histogram,
        after: tuple[Histogram, Levels | None] | None,
        beside: tuple[Histogram, Levels | None] | None = None,
    ) -> None:
        """The histogram of the layer or of one row, and that of the run beside it."""
        row, sample = self._row(), self.session.preview
        bars, levels = (None, None) if after is None else after
        scope = "this layer" if row == LAYER else f"row {row}"
        rows = None if sample is None or self.quantized is not None else (len(sample.rows), sample.row_count)
        figure = views.draw_histogram(before, bars, levels, rows, scope=scope, log=self.log.value, theme=choose_theme())
        labels = self.session.compared.labels
        if beside is not None:
            figure = compared_views.add_histogram(figure, *beside, labels, theme=choose_theme())
        elif self.session.compared.follows_run and bars is not None:
            figure = replace(figure, answer=f"{figure.answer} Orange is “{labels[1]}”.")
        self.frame.draw(figure)

    def _row(self) -> int:
        """The chosen row; an emptied field stands for the whole layer."""
        return LAYER if self.row.value is None else int(self.row.value)


class TailSection(WeightSection):
    """Quantiles of the weights against a normal and a Laplace law."""

    def layout(self) -> pn.viewable.Viewable:
        """The figure."""
        self.frame = FigureFrame()
        return self.frame.view

    def computations(self) -> list[Callable[[], Any]]:
        """Quantiles of both matrices."""
        return self.both("quantiles", distribution.tabulate_quantiles)

    def draw(self, before: pd.DataFrame, after: pd.DataFrame | None) -> None:
        """Both matrices against the laws."""
        self.frame.draw(distribution_views.draw_qq_plot(before, after, theme=choose_theme()))


class RangeSection(WeightSection):
    """Ranges of rows and of columns, with marked ones."""

    def layout(self) -> pn.viewable.Viewable:
        """Two figures."""
        self.frames = {"row": FigureFrame(), "column": FigureFrame()}
        return pn.Column(*self.frames.values(), sizing_mode="stretch_width")

    def computations(self) -> list[Callable[[], Any]]:
        """Ranges of both matrices, from both sides."""
        return [
            find
            for side in self.frames
            for find in self.both(f"ranges of {side}s", partial(distribution.tabulate_ranges, side=side))
        ]

    def draw(self, *tables: pd.DataFrame | None) -> None:
        """Both sides."""
        pairs = zip(tables[::2], tables[1::2], strict=True)
        for frame, (before, after), marks in zip(self.frames.values(), pairs, self.marked(), strict=True):
            assert before is not None
            frame.draw(distribution_views.draw_ranges(before, after, marks, theme=choose_theme()))


class OutlierSection(WeightSection):
    """The largest weights and where they sit."""

    def layout(self) -> pn.viewable.Viewable:
        """The figure."""
        self.frame = FigureFrame()
        return self.frame.view

    def computations(self) -> list[Callable[[], Any]]:
        """The hundred largest and what became of them, and the share of all that lie far out."""
        before, after, shared, layer = self.original, self.quantized, self.session.shared, self.session.layer

        def largest() -> pd.DataFrame:
            table = before.table("largest", distribution.tabulate_largest)
            if after is None:
                return table
            became = after.table("largest of the original", partial(distribution.gather_quantized, table), before.content_key)
            return table.assign(became=became["became"])

        return [largest, lambda: shared.sketch(layer).outlier_share]

    def draw(self, table: pd.DataFrame, beyond: float) -> None:
        """The hundred largest."""
        self.frame.draw(distribution_views.draw_outliers(table, self.original.shape, beyond, self.marked(), theme=choose_theme()))


class SpectrumSection(WeightSection):
    """Singular values of the matrix, of the quantized one and of the difference."""

    def layout(self) -> pn.viewable.Viewable:
        """The figure, and a button for matrices that take a while."""
        self.go = pn.widgets.Button(label="Compute", visible=False, width=120, stylesheets=[render_chosen_css()])
        self.go.on_click(lambda _: self.notices.guard(super(SpectrumSection, self).paint))
        self.frame = FigureFrame()
        return pn.Column(self.go, self.frame, sizing_mode="stretch_width")

    def paint(self) -> None:
        """At once where it is quick, or known already."""
        small, after = min(self.original.shape), self.quantized
        is_known = self.original.has(ALONE) if after is None else after.has(ERROR, self.original.content_key)
        self.go.visible = small > QUICK and not is_known
        if not self.go.visible:
            super().paint()
        else:
            what = f"Singular values of a matrix with {small:,} of them takes a while: press Compute."
            self.frame.say("Is the matrix, or its error, of low rank?", what)

    def computations(self) -> list[Callable[[], Any]]:
        """The original's, then those of the result and of the error."""
        before, after = self.original, self.quantized

        def alone() -> pd.DataFrame:
            return before.table(ALONE, distribution.tabulate_spectra)

        def error(quantized: Tensor) -> pd.DataFrame:
            return distribution.tabulate_spectra(before.weight.float(), quantized, alone())

        return [alone, lambda: None if after is None else after.table(ERROR, error, before.content_key)]

    def draw(self, before: pd.DataFrame, after: pd.DataFrame | None) -> None:
        """All there are."""
        self.go.visible = False
        self.frame.draw(distribution_views.draw_singular_values(before if after is None else after, theme=choose_theme()))


class WeightInspector(Sections):
    """Look at the selected layer's weights from seven sides; marked rows and channels are marked in all of them.

    Example:
        >>> import workbench as wb
        >>> inspector = wb.WeightInspector(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", threaded=False)
        >>> inspector.section.options
        ['Histogram', 'Tails', 'Ranges', 'Outliers', 'Spectrum', 'Picture', 'Channels']
        >>> inspector["Histogram"].frame.figure.question
        'Which values do the weights take?'
    """

    kinds: ClassVar = {
        "Histogram": HistogramSection,
        "Tails": TailSection,
        "Ranges": RangeSection,
        "Outliers": OutlierSection,
        "Spectrum": SpectrumSection,
        "Picture": WeightRaster,
        "Channels": ChannelScatter,
    }

    def below(self) -> list[pn.viewable.Viewable]:
        """Marks below all sections."""
        return [pn.FlexBox(self.part(RowInput).view, self.part(ChannelInput).view)]
