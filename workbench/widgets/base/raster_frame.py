"""A frame around HoloViews pictures: they are drawn again for what is visible, and tell of zooms, boxes and clicks.

HoloViews gives what the pointer does, and no more: what is marked is in the session, where all components find it, since its own
linked selections do not work on rasters.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import panel as pn

from workbench.views.holoviews_style import load_holoviews
from workbench.widgets.base.component import build_data_table
from workbench.widgets.base.markup import render_answer, render_title

ECHO_SECONDS = 1.0  # after a picture is sent, in which the browser may still tell of the one before

Draw = Callable[[Any], Any]  # content to a HoloViews element
Ends = tuple[float, float]


class RasterPane(pn.viewable.Viewer):
    """One picture, with `marks` and, where there are any, `values` over it.

    The content of the picture and the marks are drawn apart, so that a new mark sends no picture. `zoomed` is called with the
    ranges of the x and y axis (where there is more than the browser has), `brushed` with those of a box
    where there is a tool for boxes, `tapped` with a place.
    """

    def __init__(
        self,
        picture: Draw,
        marks: Draw,
        values: Draw | None = None,
        *,
        zoomed: Callable[[Ends, Ends], None] | None = None,
        brushed: Callable[[Ends, Ends], None] | None = None,
        tapped: Callable[[float, float], None],
    ) -> None:
        super().__init__()
        self._layers = (picture, marks, values)
        self._zoomed, self._brushed, self._tapped = zoomed, brushed, tapped
        self.content: Any = None
        self._ranges: tuple[Ends, Ends] | None = None  # as the browser said last
        self._drawn_at = 0.0
        self.pane = pn.pane.HoloViews(None, backend="bokeh", sizing_mode="stretch_width", margin=0)
        # the layout of the box changes: Panel 1.9 passes changes of the pane's own on to a figure that does not know all of them
        self.box = pn.Column(self.pane, sizing_mode="stretch_width", visible=False, margin=(0, 10))

    def draw(self, content: Any, marks: Any) -> None:
        """Show this content with these marks; what is shown already is not sent again."""
        if self.pane.object is None:
            self._start(content, marks)
        else:
            if content is not self.content:
                self._drawn_at = time.monotonic()
                self._pipe.send(content)
            if marks != self._marks.data:
                self._marks.send(marks)
        self.content, self.box.visible = content, True

    def _start(self, content: Any, marks: Any) -> None:
        """Build the picture around its first content."""
        hv = load_holoviews()
        self._pipe, self._marks = hv.streams.Pipe(data=content), hv.streams.Pipe(data=marks)
        picture, marked, values = self._layers
        plot = hv.DynamicMap(lambda data: picture(data), streams=[self._pipe])  # noqa: PLW0108  called as f(data=...)
        ranges, box, tap = hv.streams.RangeXY(source=plot), hv.streams.BoundsXY(source=plot), hv.streams.Tap(source=plot)
        ranges.add_subscriber(self._hear_ranges)
        box.add_subscriber(self._hear_box)
        tap.add_subscriber(self._hear_tap)
        over = hv.DynamicMap(lambda data: marked(data), streams=[self._marks])  # noqa: PLW0108
        layers = plot * over
        if values is not None:
            layers *= hv.DynamicMap(lambda data: values(data), streams=[self._pipe])  # noqa: PLW0108
        self.pane.object = layers

    def _hear_ranges(self, x_range: Ends | None, y_range: Ends | None) -> None:
        if self._zoomed is None or x_range is None or y_range is None:
            return
        ranges = _sort_ends(x_range), _sort_ends(y_range)
        # of pictures with linked axes the others say once more where they were, when they have been drawn for the new place
        is_echo = ranges == self._ranges and time.monotonic() - self._drawn_at < ECHO_SECONDS
        self._ranges = ranges
        if not is_echo:
            self._zoomed(*ranges)

    def _hear_box(self, bounds: tuple[float, float, float, float] | None) -> None:
        if self._brushed is not None and bounds is not None:
            self._brushed(_sort_ends((bounds[0], bounds[2])), _sort_ends((bounds[1], bounds[3])))

    def _hear_tap(self, x: float | None, y: float | None) -> None:
        if x is not None and y is not None:
            self._tapped(x, y)

    def __panel__(self) -> pn.viewable.Viewable:
        return self.box


def _sort_ends(ends: Sequence[float]) -> Ends:
    """The lower end first: an axis may point down."""
    return min(ends), max(ends)


@dataclass(frozen=True)
class RasterFigure:
    """What a frame shows, as far as it can be read: its question, the answer and a table."""

    question: str
    answer: str
    table: pd.DataFrame


class RasterFrame(pn.viewable.Viewer):
    """Pictures with their question as the title, the answer as a sentence, and a table of the same behind a switch.

    As `FigureFrame` is for small figures. Where there is nothing to show, `say` puts one sentence in its place.
    """

    def __init__(self, panes: Mapping[str, RasterPane]) -> None:
        super().__init__()
        self.panes = panes
        self.figure: RasterFigure | None = None
        self.title = pn.pane.HTML("", margin=(4, 10, 0, 10))
        self.answer = pn.pane.HTML("", margin=(0, 10, 4, 10))
        self.as_table = pn.widgets.Toggle(label="Show as table", value=False, variant="outline", width=130, margin=(2, 10))
        self.table = pn.Column(sizing_mode="stretch_width")
        self.as_table.param.watch(lambda _: self._swap(), "value")
        self.pictures = pn.FlexBox(*(pane.box for pane in panes.values()), sizing_mode="stretch_width")
        self.view = pn.Column(self.title, self.answer, self.pictures, self.as_table, self.table, sizing_mode="stretch_width")

    def draw(self, question: str, answer: str, contents: Mapping[str, Any], marks: Any, table: pd.DataFrame) -> None:
        """Show these contents by the names of their panes, and no other panes."""
        self._head(question, answer)
        self.figure, self.as_table.visible = RasterFigure(question, answer, table), True
        for name, pane in self.panes.items():
            if name in contents:
                pane.draw(contents[name], marks)
            else:
                pane.box.visible = False
        self._swap()

    def say(self, question: str, sentence: str) -> None:
        """No picture: why, and what to do."""
        self._head(question, sentence)
        self.figure, self.as_table.visible = None, False
        for pane in self.panes.values():
            pane.box.visible = False
        self.table[:] = []

    def _head(self, question: str, answer: str) -> None:
        self.title.object, self.answer.object = render_title(question), render_answer(answer)

    def _swap(self) -> None:
        shown = self.figure is not None and self.as_table.value
        self.table[:] = [build_data_table(self.figure.table)] if shown and self.figure else []

    def __panel__(self) -> pn.viewable.Viewable:
        return self.view
