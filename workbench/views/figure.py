"""One figure that answers one question, with the answer as a sentence and the same data as a table."""

import html
import math
import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.cell_display import CellSummary, ShownInCell, select_types

if TYPE_CHECKING:
    import pandas as pd


PLOTLY = "application/vnd.plotly.v1+json"  # the MIME type that JupyterLab draws without a kernel
BREAK = "<br>"
HEIGHT = 360  # pixels
TITLE_TOP = 28  # pixels from the top to where plotly anchors a title, which lies half above that
TITLE_HEIGHT, LINE_HEIGHT = 30, 24  # pixels of the question with its spaces, and of a line of the answer
LINE_CHARS = 110  # characters of the answer in a line, which fit a notebook of 900 pixels
LABELS = ("name", "text", "hovertext", "customdata", "x", "y", "labels", "ids", "parents")


@dataclass(frozen=True)
class Figure(ShownInCell):
    """One figure that answers one question, with the answer as a sentence and the same data as a table.

    The table holds what the plot shows, so that a reader who cannot see the plot misses nothing. In a cell it shows itself.

    Args:
        question: The title.
        answer: One sentence with numbers.
        plot: A plotly figure as a dict with `data` and `layout`; plotly's `Figure(figure.plot)` takes it.
        table: What the plot shows.

    Example:
        >>> import workbench as wb
        >>> result = wb.quantize(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", wb.recipe("rtn", bits=2))
        >>> figure = wb.figures.bit_ledger(result.ledger)
        >>> figure.question
        'Where does every stored bit go?'
        >>> len(figure.table), sorted(figure.plot)
        (3, ['data', 'layout'])
    """

    question: str
    answer: str
    plot: dict[str, Any]
    table: "pd.DataFrame"

    def __repr__(self) -> str:
        return f"<Figure {self.question!r}: {self.answer}>"

    def cell_summary(self) -> CellSummary:
        """The first rows of the table, with its own names of columns."""
        headers = [str(column) for column in self.table.columns]
        rows = [[_format_cell(value) for value in row] for row in self.table.itertuples(index=False)]
        return CellSummary.of_rows(self.question, self.answer, headers, rows)

    def _repr_mimebundle_(self, include: Collection[str] | None = None, exclude: Collection[str] | None = None) -> dict[str, Any]:
        """The plot with question and answer above it for a page that draws plotly, else the table."""
        return select_types({**super()._repr_mimebundle_(), PLOTLY: _build_titled_plot(self)}, include, exclude)

    def __post_init__(self) -> None:
        """plotly reads labels as HTML: a token such as `<s>` would vanish."""
        traces = [trace | {name: escape_labels(trace[name]) for name in LABELS if name in trace} for trace in self.plot["data"]]
        axes = {name: axis | {"ticktext": escape_labels(axis["ticktext"])} for name, axis in _list_labelled_axes(self.plot)}
        layout = {"layout": self.plot["layout"] | axes} if axes else {}
        object.__setattr__(self, "plot", {**self.plot, "data": traces, **layout})


def _format_cell(value: Any) -> str:
    """A value of a table, numbers to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _build_titled_plot(figure: Figure) -> dict[str, Any]:
    """The plot as plain JSON values, under a title that says what the frame around a figure says elsewhere."""
    lines = escape_labels(textwrap.wrap(figure.answer, LINE_CHARS))
    layout = dict(figure.plot.get("layout", {}))
    margin = dict(layout.get("margin", {}))
    room = TITLE_TOP + TITLE_HEIGHT + LINE_HEIGHT * len(lines)
    height = layout.get("height", HEIGHT) + room
    top = {"x": 0.01, "xanchor": "left", "y": 1 - TITLE_TOP / height, "yanchor": "top", "yref": "container"}
    parts = [*escape_labels([figure.question]), *(f"<sub>{line}</sub>" for line in lines)]
    layout["title"] = {"text": BREAK.join(parts), **top}
    layout["margin"] = {**margin, "t": margin.get("t", 0) + room}
    layout["height"] = height
    return _make_json_safe({**figure.plot, "layout": layout})


def _make_json_safe(value: Any) -> Any:
    """A plot's value as JSON has it: arrays as lists, and nothing in the place of NaN and infinity."""
    if isinstance(value, Mapping):
        return {str(key): _make_json_safe(part) for key, part in value.items()}
    if hasattr(value, "tolist"):  # arrays and numbers of NumPy, series, tensors
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_make_json_safe(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _list_labelled_axes(plot: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The axes whose ticks have texts of their own, by name."""
    layout = plot.get("layout", {})
    return [(name, axis) for name, axis in layout.items() if isinstance(axis, dict) and "ticktext" in axis]


def escape_labels(labels: Any) -> Any:
    """The same labels as plotly shows them letter by letter; line breaks (`<br>`) that a view put there stay."""
    if isinstance(labels, str):
        return BREAK.join(html.escape(line, quote=False) for line in labels.split(BREAK))
    return [escape_labels(label) for label in labels] if isinstance(labels, list | tuple) else labels
