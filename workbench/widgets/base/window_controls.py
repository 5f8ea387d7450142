"""The window of a matrix by keyboard: its edges as fields, and buttons that move it, so that no picture needs a mouse."""

from collections.abc import Callable
from functools import partial

import panel as pn

from workbench.analysis.weights.raster import Window, scale_window, shift_window
from workbench.widgets.base.controls import build_action_button

STEPS = {"←": ("left", 0, -1), "→": ("right", 0, 1), "↑": ("up", -1, 0), "↓": ("down", 1, 0)}
SCALES = {"+": ("Show half as many rows and columns", 0.5), "−": ("Show twice as many rows and columns", 2.0)}


class WindowControls(pn.viewable.Viewer):
    """Fields for the first and last row and column of a window, and buttons that move, halve and double it.

    `changed` is called with every window that is asked for; what is shown is set by `fill`.
    """

    def __init__(self, changed: Callable[[Window], None], *, column: str = "column") -> None:
        super().__init__()
        self.changed, self.shape, self._filling = changed, (1, 1), False
        self.edges = [
            pn.widgets.IntInput(label=label, value=0, start=0, width=110, description="Edge of the window to show.")
            for label in ("First row", "Last row", f"First {column}", f"Last {column}")
        ]
        for edge in self.edges:
            edge.param.watch(lambda _: self._typed(), "value")
        self.moves = {
            sign: self._build_button(sign, f"Move the window {where} by half of it", partial(self._shift, down, right))
            for sign, (where, down, right) in STEPS.items()
        }
        self.moves |= {sign: self._build_button(sign, what, partial(self._scale, by)) for sign, (what, by) in SCALES.items()}
        self.show_all = build_action_button("Whole matrix", "Show all rows and columns", 120, main=False)
        self.show_all.on_click(lambda _: self.changed(self.all_weights))
        buttons = pn.Row(*self.moves.values(), margin=(22, 6, 5, 6))
        self.view = pn.FlexBox(*self.edges, buttons, self.show_all)

    @property
    def all_weights(self) -> Window:
        """The window of all rows and columns."""
        return 0, self.shape[0] - 1, 0, self.shape[1] - 1

    @property
    def window(self) -> Window:
        """The window in the fields, its edges in order; an emptied field is the matrix's edge."""
        pairs = zip(self.edges, self.all_weights, strict=True)
        top, bottom, left, right = (end if edge.value is None else int(edge.value) for edge, end in pairs)
        return min(top, bottom), max(top, bottom), min(left, right), max(left, right)

    def fill(self, window: Window, shape: tuple[int, int]) -> None:
        """Put a window of a matrix of this shape into the fields."""
        self.shape, self._filling = shape, True
        rows, cols = shape
        for edge, value, size in zip(self.edges, window, (rows, rows, cols, cols), strict=True):
            edge.param.update(end=size - 1, value=int(min(max(value, 0), size - 1)))
        self._filling = False

    def _build_button(self, sign: str, what: str, act: Callable[[], None]) -> pn.widgets.Button:
        """A small button with one sign; what it does is its tooltip and its name for a screen reader."""
        button = pn.widgets.Button(label=sign, variant="outline", width=36, margin=(0, 2), description=what)
        button.on_click(lambda _: act())
        return button

    def _shift(self, down: int, right: int) -> None:
        self.changed(shift_window(self.window, self.shape, down, right))

    def _scale(self, factor: float) -> None:
        self.changed(scale_window(self.window, self.shape, factor))

    def _typed(self) -> None:
        if not self._filling:
            self.changed(self.window)

    def __panel__(self) -> pn.viewable.Viewable:
        return self.view
