"""The base of every component: a session that announces changes, and the frame around one figure."""

from collections.abc import Callable
from typing import Any, ClassVar, TypeVar
from weakref import proxy

import pandas as pd
import panel as pn
from bokeh.models.widgets.tables import NumberFormatter
from pandas.api.types import is_numeric_dtype

from workbench.analysis import glossary
from workbench.quantized import QuantizedLayer
from workbench.views.figure import Figure
from workbench.views.theme import DARK, LIGHT, Theme
from workbench.widgets.base import panel_theme
from workbench.widgets.base.live import Subject, open_live_session
from workbench.widgets.base.markup import render_answer, render_title
from workbench.widgets.base.notices import Notices
from workbench.widgets.base.presentation import enlarge, is_presented
from workbench.widgets.panel_patches.linked_documents import leave_cell_document
from workbench.widgets.panel_patches.offline_resources import notebook

C = TypeVar("C", bound="Component")

PLOT_CONFIG = {
    "displaylogo": False,
    "responsive": True,
    "modeBarButtons": [["toImage", "zoom2d", "resetScale2d"]],
    "toImageButtonOptions": {"format": "svg", "filename": "workbench"},
}
TABLE_PARTS = (
    "tableholder",
    "table",
    "row",
    "cell",
    "footer",
    "header",
    "col",
    "page",
)  # of a table, that have colours of their own
SMALL_BUTTON_CSS = ".bk-btn{padding:1px 9px!important;font-size:0.8rem;min-height:24px}"  # of what stands below each figure
SAVE = """
const view = Bokeh.index.find_one(plot)
const figure = view.shadow_el.querySelector('.js-plotly-plot')
window.Plotly.downloadImage(figure, {format: 'FORM', filename: 'workbench', scale: 2})
"""


def choose_theme() -> Theme:
    """Dark where the page is dark."""
    return DARK if pn.config.theme == "dark" else LIGHT


def render_chosen_css() -> str:
    """Style of what is chosen among buttons: it stands out by colour and weight in both modes."""
    colours = choose_theme()
    # Panel's own rules for its primary colour are more specific than a component's style sheet
    strong = f"background:{colours.action}!important;color:{colours.contrast}!important"
    return (
        ".bk-btn-group{flex-wrap:wrap} .bk-btn{white-space:normal;overflow-wrap:anywhere;max-width:100%}"
        f".bk-btn.bk-active{{{strong};font-weight:600;box-shadow:none!important}}"
        f".bk-btn-primary{{{strong};border-color:{colours.action}}} .bk-btn-primary:hover{{filter:brightness(1.1);{strong}}}"
    )


def is_served() -> bool:
    """Whether this is the page of a visitor, and not a cell of a notebook."""
    return pn.state.curdoc is not None and pn.state.curdoc.session_context is not None


def run_in_browser(button: pn.widgets.Button, code: str, **parts: pn.viewable.Viewable) -> None:
    """Run JavaScript when a button is pressed, in which `parts` have the names given here.

    Panel keeps them in a registry for as long as the button lives. They know the page and the page its buttons, so that held by
    more than weak references every page would stay in memory.
    """
    button.js_on_click(args={name: proxy(part) for name, part in parts.items()}, code=code)


class Component(pn.viewable.Viewer):
    """One part of the screen over a live session, alone or linked to others. Subclasses say in `build` what it looks like and in
    `refresh` what it shows.

    `watches` names the events of `Live` that it follows (drawn in `base.live`). A part behind another tab (`look(False)`)
    is not drawn; what it missed it shows when it is looked at again. What fails becomes a notice: in the explorer's `notices` or,
    for a part on its own, above it. `threaded=False` runs its jobs in this thread.
    """

    watches: ClassVar[tuple[str, ...]] = ("choice", "results")
    waits: ClassVar[bool] = True  # it stays as it is, greyed, until a preview is there
    is_presented: ClassVar[bool] = False  # whether it stays on the page in presentation mode, see `present`
    is_wide: ClassVar[bool] = False  # whether it takes most of the line in which it stands above the explorer's views

    def __init__(
        self,
        model: Subject,
        layer: str | QuantizedLayer | None = None,
        *,
        notices: Notices | None = None,
        threaded: bool = True,
    ) -> None:
        """Show something of a model, of a session, or of what another component shows.

        Args:
            model: A model from `wb.open_model` or its name, a session, what `wb.quantize` or `wb.quantize_model` made, or another
                component, which then is linked: what is chosen or quantized in one redraws the other.
            layer: The layer to select, or a result for one of the model's layers; the first layer when absent.
            notices: Where failures are shown, above the component itself when absent.
            threaded: Whether jobs run in a thread of their own.

        Raises:
            WorkbenchError: For a subject of another type.
            ModelError: For a model that cannot be opened, or has no such layer.
        """
        if notices is None:
            notebook()
        super().__init__()
        self.live = open_live_session(model, layer, type(self).__name__)
        self.session, self.threaded = self.live.session, threaded
        self.alone, self.notices = notices is None, notices or Notices()
        self.visible, self.stale, self.begun = True, False, False
        self.view = self.build()
        self.refresh()
        self.live.param.watch(lambda *_: self.changed(), list(self.watches))

    def changed(self) -> None:
        """Show what is new, now or when this part is looked at; a failure here keeps no other part from its turn."""
        self.stale = not self.visible
        if not self.visible:
            return
        waiting = self.waits and self.live.waiting
        with leave_cell_document():
            self.view.styles = {**self.view.styles, "opacity": "0.45" if waiting else "1"}
            if not waiting:
                self.notices.guard(self.refresh)

    def look(self, visible: bool) -> None:
        """Come to the front, or go behind another tab. What a study shows by default is computed when it is first in front."""
        self.visible = visible
        if visible and self.stale:
            self.changed()
        if visible and not self.begun and self.threaded and self.session.shared.begins_alone and is_served():
            self.begun = True
            if pn.state.loaded:
                self.notices.guard(self.begin_default)
            else:
                pn.state.onload(lambda: self.notices.guard(self.begin_default))

    def begin_default(self) -> None:
        """Compute what a study shows by default, as its button does; other views show something anyway."""

    def present(self, on: bool) -> None:
        """Show only what a room needs, or everything again; asked of those that stay on a presented page."""

    def part(self, kind: type[C]) -> C:
        """A component inside this one: on the same session, with the same notices."""
        return kind(self.live, notices=self.notices, threaded=self.threaded)

    def does(self, button: pn.widgets.Button, action: Callable[[], object]) -> pn.widgets.Button:
        """A button that does something when it is pressed; what goes wrong becomes a notice."""
        button.on_click(lambda _: self.notices.guard(action))
        return button

    def build(self) -> pn.viewable.Viewable:
        """The layout, once."""
        raise NotImplementedError

    def refresh(self) -> None:
        """Show what the session holds now."""
        raise NotImplementedError

    def __panel__(self) -> pn.viewable.Viewable:
        if not self.alone:
            return self.view
        # a page has its look already, a notebook may have any
        styles = {**panel_theme.build_page_styles(choose_theme()), "padding": "12px"} if pn.state.curdoc is None else {}
        return pn.Column(self.notices, self.view, sizing_mode="stretch_width", styles=styles)

    def ipywidget(self) -> Any:
        """The component as an ipywidget, to be placed in an `ipywidgets.VBox` or, as wide as its neighbours, an `HBox`."""
        widget = pn.ipywidget(self)
        widget.layout = {"width": "100%", "min_width": "0"}
        return widget


class FigureFrame(pn.viewable.Viewer):
    """A figure with its question as the title, its answer as a sentence, and its table behind a switch.

    Where there is nothing to show, `say` puts one sentence with the next step in its place.
    """

    def __init__(self) -> None:
        super().__init__()
        self.figure: Figure | None = None
        self.title = pn.pane.HTML("", margin=(4, 10, 0, 10))
        self.answer = pn.pane.HTML("", margin=(0, 10, 4, 10))
        self.plot = pn.pane.Plotly(None, config=PLOT_CONFIG, sizing_mode="stretch_width", margin=(0, 10))
        self.as_table = pn.widgets.Toggle(
            label="Show as table", value=False, variant="outline", margin=(0, 4, 0, 10), stylesheets=[SMALL_BUTTON_CSS]
        )
        self.table = pn.Column(sizing_mode="stretch_width")
        self.as_table.param.watch(lambda _: self._swap(), "value")
        saving = [self._save_as(form) for form in ("SVG", "PNG")]
        self.below = pn.FlexBox(self.as_table, *saving)
        self.view = pn.Column(self.title, self.answer, self.plot, self.table, self.below, sizing_mode="stretch_width")

    def draw(self, figure: Figure) -> None:
        """Show a figure; a figure of the same kind is patched in place, so nothing jumps."""
        self.figure = figure
        self._head(figure.question, figure.answer)
        self.plot.object = enlarge(figure.plot)
        self.below.visible = not is_presented()
        self._swap()

    def say(self, question: str, sentence: str) -> None:
        """No figure yet: why, and what to do."""
        self.figure = None
        self._head(question, sentence)
        self.plot.visible = self.below.visible = False
        self.table[:] = []

    def _save_as(self, form: str) -> pn.widgets.Button:
        """A button that saves the figure as it is on the screen."""
        button = pn.widgets.Button(
            label=form,
            variant="outline",
            margin=(0, 4),
            description=f"Save the figure as {form}",
            stylesheets=[SMALL_BUTTON_CSS],
        )
        run_in_browser(button, SAVE.replace("FORM", form.lower()), plot=self.plot)
        return button

    def _head(self, question: str, answer: str) -> None:
        self.title.object, self.answer.object = render_title(question), render_answer(answer)

    def _swap(self) -> None:
        shown = self.figure is not None and self.as_table.value
        self.plot.visible = self.figure is not None and not shown
        self.table[:] = [build_data_table(self.figure.table)] if shown and self.figure else []

    def __panel__(self) -> pn.viewable.Viewable:
        return self.view


def build_data_table(frame: pd.DataFrame, **settings: Any) -> pn.widgets.Tabulator:
    """A table with the glossary's headers, tooltips and number formats; numbers stay numbers and sort as such."""
    shown = format_table(frame)
    return pn.widgets.Tabulator(
        shown,
        titles={column: glossary.label_column(column) for column in shown},
        header_tooltips={column: glossary.explain_column(column) for column in shown if glossary.explain_column(column)},
        formatters={column: _build_number_formatter(column) for column in shown if is_numeric_dtype(shown[column])},
        theme="simple",
        stylesheets=[_render_table_css()],
        show_index=False,
        disabled=True,
        pagination="local",
        page_size=20,
        sizing_mode="stretch_width",
        **settings,
    )


def _render_table_css() -> str:
    """A table in the page's colours, every other line raised."""
    colours = choose_theme()
    # Tabulator's own rules name more classes than these
    plain = f"background-color:{colours.surface}!important;color:{colours.text}!important;border-color:{colours.border}!important"
    parts = (".tabulator", *(f".tabulator .tabulator-{part}" for part in TABLE_PARTS))
    return (
        f"{','.join(parts)}{{{plain}}} .tabulator .tabulator-header input{{{plain};border:1px solid}}"
        f".tabulator .tabulator-row-even .tabulator-cell{{background-color:{colours.raised}!important}}"
        f".tabulator .tabulator-header input::placeholder{{color:{colours.muted}}}"
        f".tabulator .tabulator-page.active{{color:{colours.action}!important;font-weight:700}}"
    )


def format_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of a table as they are shown: short numbers, a dash where there is no text."""
    shown = frame.reset_index(drop=True).copy()
    for column in shown:
        if glossary.has_significant_digits(column):
            shown[column] = [float(f"{value:.3g}") for value in shown[column].astype(float)]
        elif not is_numeric_dtype(shown[column]):
            shown[column] = [glossary.format_value(column, value) for value in shown[column]]
    return shown


def _build_number_formatter(column: str) -> NumberFormatter:
    """How a column's numbers are written in a table; a dash where there is none."""
    forms = {",d": "0,0", ",.0f": "0,0", "d": "0", ".2f": "0.00", ".1%": "0.0%", ".2%": "0.00%"}
    return NumberFormatter(format=forms.get(glossary.find_format(column), "0.[000000]"), nan_format="–")
