"""Which codeword each vector uses: the index of a codebook as a map, down to single vectors."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import panel as pn

from workbench.analysis.method import codewords
from workbench.analysis.weights.raster import Window, find_visible_window
from workbench.views.holoviews_style import name_axes
from workbench.views.method import index_map as views
from workbench.views.method.index_map import MAP_QUESTION, IndexPicture
from workbench.views.weights.weight_raster import compute_axis_ranges
from workbench.widgets.base.component import choose_theme
from workbench.widgets.base.raster_frame import Ends, RasterFrame, RasterPane
from workbench.widgets.base.window_controls import WindowControls
from workbench.widgets.method.book_section import BookSection, Reading

MAP = "map"


class MapSection(BookSection):
    """The code of each vector; a click marks it, and cells with a marked code stand out."""

    questions = (MAP_QUESTION,)

    def build_frames(self) -> Sequence[Any]:
        """One picture."""
        axes = name_axes("vector of the row", "row (output feature)")
        self.axes: tuple[Ends, Ends] = ((0.0, 1.0), (0.0, 1.0))  # what is visible
        self.pane = RasterPane(
            partial(views.draw_index_map, axes=axes),
            partial(views.draw_no_marks, axes=axes),
            partial(views.draw_codes, axes=axes),
            zoomed=lambda x, y: self.notices.guard(lambda: self._look_at(x, y)),
            tapped=lambda x, y: self.notices.guard(lambda: self._tap(x, y)),
        )
        return [RasterFrame({MAP: self.pane})]

    def controls(self) -> list[pn.viewable.Viewable]:
        """The window."""
        self.window = WindowControls(lambda window: self.notices.guard(lambda: self.zoom(window)), column="vector")
        return [self.window.view]

    def zoom(self, window: Window) -> None:
        """Show a window: first and last row, first and last vector."""
        if self.reading is not None:
            self.window.fill(window, self.window.shape)
            self.axes = compute_axis_ranges(self.window.window)
            self.paint(self.reading)

    def paint(self, reading: Reading) -> None:
        """The same window of an index of the same shape, the whole of another one."""
        rows, vectors = reading.book.index.shape
        if (rows, vectors) != self.window.shape:
            self.window.fill((0, rows - 1, 0, vectors - 1), (rows, vectors))
            self.axes = compute_axis_ranges(self.window.window)
        window = self.window.window
        raster = codewords.rasterize_index(reading.book, window, self.marks)
        picture = IndexPicture(raster, window, reading.book.entries, (rows, vectors), *self.axes, choose_theme())
        table = codewords.tabulate_codes_in_window(reading.book, window)
        answer = views.describe_index(picture, table, self.marks)
        self.frames[0].draw(MAP_QUESTION, answer, {MAP: picture}, (), table)

    def _look_at(self, x: Ends, y: Ends) -> None:
        """Show what the axes of the picture reach now."""
        if self.reading is None or (x, y) == self.axes:
            return
        self.axes = (x, y)
        window = find_visible_window(x, y, self.window.shape)
        if window != self.window.window:
            self.window.fill(window, self.window.shape)
            self.paint(self.reading)

    def _tap(self, x: float, y: float) -> None:
        """Mark the code that the clicked cell shows."""
        if self.reading is None or self.pane.content is None:
            return
        picture: IndexPicture = self.pane.content
        top, _, left, _ = picture.window
        down, right = (round(y) - top) // picture.raster.row_step, (round(x) - left) // picture.raster.col_step
        height, width = picture.raster.codes.shape
        if 0 <= down < height and 0 <= right < width:
            self.live.mark(codes=[int(picture.raster.codes[down, right])])
