"""Layer selection: the layer map with keyboard control, and the table of all layers with sorting and filters."""

from typing import Any

import pandas as pd
import panel as pn
from pandas.api.types import is_numeric_dtype

from workbench.analysis import glossary
from workbench.analysis.weights import sketch_cache
from workbench.session.blame import BLAME
from workbench.session.layer_table import SKETCHED
from workbench.views.layer_grid import find_layer
from workbench.views.layer_names import label_layer_name
from workbench.views.weights import layer_map as views
from workbench.views.weights.block_drawing import draw_block
from workbench.widgets.base.component import (
    Component,
    FigureFrame,
    build_data_table,
    choose_theme,
    format_table,
    render_chosen_css,
)
from workbench.widgets.base.controls import build_folded_card
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.markup import render_paragraph
from workbench.widgets.elements.token_buttons import Tokens
from workbench.widgets.shell.layer_brush import LayerBrush

PRESENTED_ZOOM = "1.2"  # of the drawing of a block, when the page is presented
COLOURS = ("parameters", "std", "absmax", "kurtosis", "outlier_share", "bits_per_weight", "relative_error", "output_error")
SENSITIVITY = "sensitivity"
AT_ONCE = 1 << 25  # a model of so many weights is read in a second or two, before the page is shown; larger ones while it is used
BESIDE = {"flex": "1 1 150px", "min-width": "150px"}  # of menus that share a line where there is room
MOVES = {"◀ matrix": (0, -1), "matrix ▶": (0, 1), "▲ block": (-1, 0), "▼ block": (1, 0)}


class LayerBrowser(Component):
    """Show the model's layers as a grid of block × matrix, coloured by a column; a click, a step or the menu selects one.

    A model that is not small is read in the background, one layer at a time, and its cells fill as they are read.

    Example:
        >>> import workbench as wb
        >>> browser = wb.LayerBrowser(wb.open_model("builtin"))
        >>> browser.frame.figure.question
        'Which layers have heavy tails?'
    """

    watches = ("choice", "results", "run", "selection")
    is_presented = True

    def build(self) -> pn.viewable.Viewable:
        """The map first, then progress of reading, steps, menu and colour choice."""
        self.menu = pn.widgets.Select(
            label="Layer",
            options=self.session.model.layer_names,
            description="Layer shown in all views.",
            styles=BESIDE,
        )
        self.colour = pn.widgets.Select(
            label="Colour by",
            options={glossary.label_column(c): c for c in COLOURS},
            value="kurtosis",
            description="Column that colours the map.",
            styles=BESIDE,
        )
        self.steps = {label: self._step_button(label, *way) for label, way in MOVES.items()}
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        self.jobs.view.visible = False
        self.frame = FigureFrame()
        self.frame.plot.param.watch(self._clicked, "click_data")
        self.frame.plot.param.watch(self._boxed, "selected_data")
        self.drawing, self.brush = Tokens(self._pick, margin=(2, 10)), self.part(LayerBrush)
        self.menu.param.watch(lambda event: self.live.choose(lambda: self.session.select(event.new)), "value")
        self.colour.param.watch(self._coloured, "value")
        self.is_colour_chosen = self.is_following = False
        self._read()
        self.frame.view.styles = {"flex": "4 1 280px"}
        self.drawing.styles = {"flex": "1 1 260px"}
        pictures = pn.FlexBox(self.frame, self.drawing, align_items="center", sizing_mode="stretch_width")
        steps = pn.FlexBox(*self.steps.values(), gap="4px", margin=(5, 10, 0, 10), sizing_mode="stretch_width")
        menus = pn.FlexBox(self.menu, self.colour, sizing_mode="stretch_width")
        several = build_folded_card("Several layers", self.brush.view)
        self.controls = pn.Column(steps, menus, several, sizing_mode="stretch_width")
        return pn.Column(pictures, self.jobs, self.controls, sizing_mode="stretch_width")

    def present(self, on: bool) -> None:
        """The map and the drawing of the block only, both larger."""
        self.controls.visible = not on
        self.drawing.styles = {**self.drawing.styles, "zoom": PRESENTED_ZOOM if on else "1"}

    def refresh(self) -> None:
        """Colours of the latest results and the frame around the selected layer."""
        self.menu.value = self.session.layer
        table = self.session.layer_table(wait=False)
        is_just_measured = SENSITIVITY in table and SENSITIVITY not in self.colour.options.values()
        self._offer_colours(table)
        self._follow_errors(table, is_just_measured)
        sketches = self.session.shared.sketches.values()
        column, selected, marked = self.colour.value, self.session.layer, self.session.selection.layers
        painted = self.session.painting.recipes
        figure = views.draw_layer_map(table, column, selected, marked=marked, painted=painted, theme=choose_theme())
        self.drawing.object = draw_block(table, selected, column, marked, theme=choose_theme())
        if sketches and column in SKETCHED:
            figure = views.add_moments_sentence(figure, sketch_cache.merge_sketches(list(sketches)))
        self.frame.draw(figure)
        for label, way in MOVES.items():
            self.steps[label].disabled = self._beside(*way) is None

    def _coloured(self, _: Any) -> None:
        """A colour that a visitor chose stays."""
        self.is_colour_chosen = self.is_colour_chosen or not self.is_following
        if not self.is_following:
            self.refresh()

    def _offer_colours(self, table: pd.DataFrame) -> None:
        """What the table has; differences only while two runs are compared, and what goes away leaves the errors."""
        columns = [c for c in (*COLOURS, *views.SIGNED, *self.session.measured) if c in table]
        if self.colour.value not in columns:
            self.is_colour_chosen, self.is_following = False, True
            self.colour.value = "relative_error"
            self.is_following = False
        self.colour.options = {glossary.label_column(c): c for c in columns}

    def _follow_errors(self, table: pd.DataFrame, is_just_measured: bool) -> None:
        """Colour by what quantizing did as soon as every layer is quantized, or by the difference from the run beside it, or by
        the blame for a fork or the sensitivity once it is measured, unless a visitor has chosen a colour."""
        columns = ("error_difference", "output_error", "relative_error")
        errors = next((name for name in columns if name in table and table[name].notna().all()), None)
        errors = BLAME if BLAME in table else errors  # somebody has just asked for it
        errors = SENSITIVITY if is_just_measured else errors
        if errors is not None and not self.is_colour_chosen:
            self.is_following = True
            self.colour.value = errors
            self.is_following = False

    def _read(self) -> None:
        """Read the layers: at once where that takes a moment, else as a job that starts once the page is there."""
        shared = self.session.shared
        if shared.is_sketched:
            return
        if int(self.session.model.layers()["parameters"].sum()) <= AT_ONCE:
            for _ in shared.sketch_steps():
                pass
            return
        self.jobs.view.visible = True
        pn.state.onload(
            lambda: self.jobs.run(shared.sketch_steps, "reading the layers", on_step=self._on_step, ended=self._ended)
        )

    def _on_step(self, job: Any) -> str | None:
        """Fill the map with what has been read so far."""
        self.refresh()
        return (
            None if job.latest is None else f"Reading the layers: {job.progress:.0%}, last {label_layer_name(job.latest.layer)}."
        )

    def _ended(self, job: Any) -> None:
        self.jobs.view.visible = job.error is not None or not self.session.shared.is_sketched
        self.live.announce("results")

    def _step_button(self, label: str, down: int, right: int) -> pn.widgets.Button:
        """One step over the grid."""
        way = {(0, -1): "left", (0, 1): "right", (-1, 0): "above", (1, 0): "below"}[down, right]
        button = pn.widgets.Button(
            label=label,
            margin=0,
            styles={"flex": "1 1 4.4rem"},
            description=f"Select the layer {way} on the map",
            stylesheets=[render_chosen_css(), ".bk-btn{padding:6px 4px;overflow-wrap:normal}"],
        )

        def pressed(_: Any) -> None:
            if (name := self._beside(down, right)) is not None:
                self.live.choose(lambda: self.session.select(name))

        button.on_click(pressed)
        return button

    def _beside(self, down: int, right: int) -> str | None:
        """The nearest layer in one direction on the map, past empty cells; None at its edge."""
        if self.frame.figure is None:
            return None
        names = [[cell[0] for cell in line] for line in self.frame.figure.plot["data"][0]["customdata"]]
        row, col = next((r, line.index(self.session.layer)) for r, line in enumerate(names) if self.session.layer in line)
        while 0 <= (row := row + down) < len(names) and 0 <= (col := col + right) < len(names[row]):
            if names[row][col]:
                return str(names[row][col])
        return None

    def _clicked(self, event: Any) -> None:
        points = (event.new or {}).get("points") or []
        name = self._find_layer(points[0]) if points else None
        if name in self.session.model.layer_names:
            self.live.choose(lambda: self.session.select(name))

    def _find_layer(self, point: dict[str, Any]) -> str | None:
        """The layer in one cell of the map."""
        return None if self.frame.figure is None else find_layer(self.frame.figure.plot, point)

    def _boxed(self, event: Any) -> None:
        """A box over the map marks the layers inside; Plotly tells of an empty one whenever the figure is drawn anew."""
        points = (event.new or {}).get("points") or []
        if not points:
            return
        cells = map(self._find_layer, points)
        self.notices.guard(lambda: self.live.mark(layers=dict.fromkeys(filter(None, cells))))

    def _pick(self, row: int) -> None:
        """A matrix of the drawing was chosen, by its row in the table of layers."""
        self.live.choose(lambda: self.session.select(self.session.model.layer_names[row]))


class LayerTable(Component):
    """List all layers with their numbers, sorted by a click on a header, filtered by the fields below; a row selects its layer.

    Example:
        >>> import workbench as wb
        >>> table = wb.LayerTable(wb.open_model("builtin")).table.value
        >>> len(table), int(table["parameters"].sum())
        (42, 4718592)
    """

    def build(self) -> pn.viewable.Viewable:
        """The table, as it stands at first."""
        frame = self.session.layer_table(wait=False)
        self.table = build_data_table(frame, header_filters=_build_header_filters(frame), hidden_columns=["name"])
        self.table.on_click(self._clicked)
        self.hint = pn.pane.HTML("", margin=(4, 10), sizing_mode="stretch_width")
        return pn.Column(self.hint, self.table, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """New numbers in the same table, so that its order, filters and page stay."""
        frame = self.session.layer_table(wait=False)
        if list(frame) != list(self.table.value):
            self.table.header_filters = _build_header_filters(frame)
        self.table.value = format_table(frame)
        read = len(self.session.shared.sketches)
        summary = f"{len(frame)} layers" if read == len(frame) else f"{len(frame)} layers, {read} of them read"
        self.hint.object = render_paragraph(f"{summary}; {self.session.layer} is selected. Click a row to select its layer.")

    def _clicked(self, event: Any) -> None:
        name = self.table.value["name"].iloc[event.row]
        self.notices.guard(lambda: self.live.choose(lambda: self.session.select(name)))


def _build_header_filters(frame: pd.DataFrame) -> dict[str, dict[str, str]]:
    """A field below every header: words that a text contains, or the least that a number may be."""
    least = {"type": "number", "func": ">=", "placeholder": "≥"}
    contains = {"type": "input", "func": "like", "placeholder": "has"}
    return {column: dict(least if is_numeric_dtype(frame[column]) else contains) for column in frame}
