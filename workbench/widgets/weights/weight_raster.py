"""The matrix as a picture: from afar, or a window of it weight by weight; original, quantized and difference at the same zoom."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import ceil, floor
from typing import Any

import pandas as pd
import panel as pn

from workbench.analysis.weights import raster
from workbench.analysis.weights.cached_tables import Portrait
from workbench.analysis.weights.raster import Raster, Read, Window
from workbench.errors import WorkbenchError
from workbench.views.holoviews_style import name_axes
from workbench.views.weights import weight_raster as views
from workbench.views.weights.weight_raster import Marks, RasterPicture, What
from workbench.widgets.base.component import choose_theme, render_chosen_css
from workbench.widgets.base.controls import BESIDE
from workbench.widgets.base.marks import MAX_RANGE_NUMBERS
from workbench.widgets.base.raster_frame import Ends, RasterFrame, RasterPane
from workbench.widgets.base.window_controls import WindowControls
from workbench.widgets.weights.weight_section import WeightSection

QUANTIZE_FIRST = "This layer is not quantized yet: press Quantize this layer."
KINDS: tuple[What, ...] = ("original", "quantized", "difference")
ALL = "side by side"
COLOUR_ENDS = {"the largest weight": 1.0, "99.9 % of the cells": 0.999}  # share of the cells that the colours tell apart
BESIDE_CELLS = (160, 240)  # height and width of a picture that stands beside two others
BESIDE_WIDTH = "260px"  # at least; narrower pages have them below one another


@dataclass(frozen=True)
class Shown:
    """What was computed for one window: the rasters by name, the original's of the same window, and the table twin."""

    key: tuple[Any, ...]
    rasters: dict[What, Raster]
    original: Raster
    table: pd.DataFrame


class WeightRaster(WeightSection):
    """Look at a layer's whole matrix, zoom in to single weights, and mark rows and channels by a click or a box.

    Each cell of the picture is the weight of largest magnitude in it, so that no outlier disappears; after each zoom, cells are
    computed again for what is visible. Original, quantized and difference can stand side by side with linked axes.

    Example:
        >>> import workbench as wb
        >>> view = wb.WeightRaster(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", threaded=False)
        >>> view.zoom((0, 3, 8, 11))  # first and last row, first and last column
        >>> view.frame.answer.object.partition(">")[2].split(";")[0]
        '4 × 4 weights, single weights'
    """

    def layout(self) -> pn.viewable.Viewable:
        """What is shown, the window, the pictures."""
        self.what = pn.widgets.RadioButtonGroup(
            label="Show", options=[*KINDS, ALL], value="original", max_width=430, margin=BESIDE, stylesheets=[render_chosen_css()]
        )
        self.share = pn.widgets.Select(
            label="Colours end at",
            options=COLOUR_ENDS,
            width=190,
            description="Where the colour scale ends; larger weights share its last colour.",
        )
        self.controls = WindowControls(lambda window: self.notices.guard(lambda: self.zoom(window)))
        axes = name_axes("column (input feature)", "row (output feature)")
        self.frame = RasterFrame({kind: self._build_pane(kind, axes) for kind in KINDS})
        self.subject = ("", 0, 0)  # the layer that the window belongs to, and its shape
        self.axes: tuple[Ends, Ends] = ((0.0, 1.0), (0.0, 1.0))  # what is visible
        self._shown: Shown | None = None
        self._drawn: tuple[tuple[Any, ...], float] = ((), 0.0)  # its key, and the share of its cells
        self._read: tuple[str, ...] = ()  # keys of the matrices that are in memory
        for switch in (self.what, self.share):
            switch.param.watch(lambda _: self.notices.guard(self.paint), "value")
        return pn.Column(pn.FlexBox(self.what, self.share), self.controls, self.frame, sizing_mode="stretch_width")

    def _build_pane(self, kind: What, axes: list[Any]) -> RasterPane:
        return RasterPane(
            partial(views.draw_weight_raster, axes=axes),
            partial(views.draw_marks, axes=axes),
            partial(views.draw_weight_values, axes=axes),
            zoomed=lambda x, y: self.notices.guard(lambda: self._look_at(x, y)),
            brushed=lambda x, y: self.notices.guard(lambda: self._brush(x, y)),
            tapped=lambda x, y: self.notices.guard(lambda: self._tap(kind, x, y)),
        )

    def paint(self) -> None:
        """The same window of the same layer, the whole matrix of another one."""
        rows, cols = self.original.shape
        if (self.session.layer, rows, cols) != self.subject:
            self.subject = (self.session.layer, rows, cols)
            self.controls.fill((0, rows - 1, 0, cols - 1), (rows, cols))
            self.axes = views.compute_axis_ranges(self.controls.window)
        at_once = self.original.is_light or self._read == self._list_keys()
        self.study.run(self.computations(), self.draw, at_once=at_once)

    def zoom(self, window: Window | None) -> None:
        """Show a window (first and last row, first and last column), or the whole matrix."""
        self.controls.fill(window or self.controls.all_weights, self.original.shape)
        self.axes = views.compute_axis_ranges(self.controls.window)
        self.paint()

    def _list_keys(self) -> tuple[str, ...]:
        """What the matrices at hand are made of."""
        return tuple(portrait.content_key for portrait in (self.original, self.quantized) if portrait is not None)

    def computations(self) -> list[Callable[[], Any]]:
        """The rasters that are asked for, unless they are those on show."""
        what, window, before, after, last = self.what.value, self.controls.window, self.original, self.quantized, self._shown

        def compute() -> Shown | None:
            if after is None and what in ("quantized", "difference"):
                return None
            content = (before.content_key, "" if after is None else after.content_key, what, window)
            return last if last is not None and last.key == content else _compute_rasters(content, what, window, before, after)

        return [compute]

    def draw(self, shown: Shown | None) -> None:
        """The pictures; original and quantized in the same colours."""
        self._read = self._list_keys()
        if shown is None:
            self.frame.say(views.RASTER_QUESTIONS[self.what.value], QUANTIZE_FIRST)
            self._shown, self._drawn = None, ((), 0.0)
            return
        is_new, self._shown, theme = self._drawn != (shown.key, self.share.value), shown, choose_theme()
        self._drawn = (shown.key, self.share.value)
        first, share = next(iter(shown.rasters)), self.share.value
        x, y = self.axes
        contents: dict[str, Any] = {
            kind: RasterPicture(
                raster=cells,
                what=kind,
                shape=self.original.shape,
                limit=(cells if kind == "difference" else shown.original).compute_limit(share),
                x=x,
                y=y,
                theme=theme,
            )
            if is_new
            else self.frame.panes[kind].content
            for kind, cells in shown.rasters.items()
        }
        answer = views.describe_raster(shown.rasters[first], first)
        if self.what.value == ALL and self.quantized is None:
            answer += f" {QUANTIZE_FIRST}"
        beside = {"flex": f"1 1 {BESIDE_WIDTH}"} if len(contents) > 1 else {"flex": "1 1 100%"}
        for kind in shown.rasters:
            self.frame.panes[kind].box.styles = beside
        marks = Marks(*self.marked(), self.original.shape, theme)
        self.frame.draw(views.RASTER_QUESTIONS[first], answer, contents, marks, shown.table)

    def _look_at(self, x: Ends, y: Ends) -> None:
        """Show what the axes of a picture reach now."""
        if (x, y) == self.axes:
            return
        self.axes = (x, y)
        window = raster.find_visible_window(x, y, self.original.shape)
        if window != self.controls.window:
            self.controls.fill(window, self.original.shape)
            self.paint()

    def _tap(self, kind: What, x: float, y: float) -> None:
        """Mark the row and the channel of the weight that was clicked, or that the clicked cell shows."""
        if self._shown is not None and kind in self._shown.rasters:
            row, col = self._shown.rasters[kind].find_cell(y, x)
            self.live.mark(rows=[row], channels=[col])

    def _brush(self, x: Ends, y: Ends) -> None:
        """Mark the rows and channels of a box; one that reaches from edge to edge leaves those it crosses as they are."""
        marks = {}
        for name, box, visible, size in (
            ("rows", y, self.axes[1], self.subject[1]),
            ("channels", x, self.axes[0], self.subject[2]),
        ):
            slack = 1e-3 * (visible[1] - visible[0])
            if box[0] > visible[0] + slack or box[1] < visible[1] - slack:
                marks[name] = range(max(ceil(box[0]), 0), min(floor(box[1]), size - 1) + 1)
        if too_many := [name for name, numbers in marks.items() if len(numbers) > MAX_RANGE_NUMBERS]:
            raise WorkbenchError(
                f"the box holds {len(marks[too_many[0]]):,} {too_many[0]}; mark at most {MAX_RANGE_NUMBERS:,} at once: "
                "zoom in first."
            )
        if marks:
            self.live.mark(**marks)


def _compute_rasters(key: tuple[Any, ...], what: str, window: Window, before: Portrait, after: Portrait | None) -> Shown:
    """The rasters of one window, and its largest weights."""
    reads: dict[What, Read] = {"original": raster.read_weight(before.weight)}
    if after is not None:
        reads["quantized"] = raster.read_weight(after.weight)
        reads["difference"] = raster.read_difference(after.weight, before.weight)
    kinds = [kind for kind in reads if what in (kind, ALL)]
    height, width = BESIDE_CELLS if len(kinds) > 1 else (raster.HEIGHT, raster.WIDTH)
    rasters = {kind: raster.rasterize(reads[kind], window, height=height, width=width) for kind in kinds}
    first = kinds[0]
    table = raster.tabulate_largest_weights(rasters[first], reads[first])
    if first != "original":
        table = table.rename(columns={"value": first})
    for kind in reads:
        if kind != first:
            pairs = zip(table["row"], table["column"], strict=True)
            table[kind] = [float(reads[kind](slice(row, row + 1), slice(col, col + 1))[0, 0]) for row, col in pairs]
    names = {"original": "value", "quantized": "became"}
    table = table.rename(columns=names)[["row", "column", *(names.get(kind, kind) for kind in reads)]]
    original = rasters.get("original") or raster.rasterize(reads["original"], window, height=height, width=width)
    return Shown(key, rasters, original, table)
