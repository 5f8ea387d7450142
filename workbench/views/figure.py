"""One figure that answers one question, with the answer as a sentence and the same data as a table."""

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


BREAK = "<br>"
LABELS = ("name", "text", "hovertext", "customdata", "x", "y", "labels", "ids", "parents")


@dataclass(frozen=True)
class Figure:
    """`question` is the title, `answer` one sentence with numbers, `plot` a plotly figure dict, `table` its twin.

    The table holds what the plot shows, so that a reader who cannot see the plot misses nothing.
    """

    question: str
    answer: str
    plot: dict[str, Any]
    table: "pd.DataFrame"

    def __post_init__(self) -> None:
        """plotly reads labels as HTML: a token such as `<s>` would vanish."""
        traces = [trace | {name: escape_labels(trace[name]) for name in LABELS if name in trace} for trace in self.plot["data"]]
        axes = {name: axis | {"ticktext": escape_labels(axis["ticktext"])} for name, axis in labelled_axes(self.plot)}
        layout = {"layout": self.plot["layout"] | axes} if axes else {}
        object.__setattr__(self, "plot", {**self.plot, "data": traces, **layout})


def labelled_axes(plot: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """The axes whose ticks have texts of their own, by name."""
    layout = plot.get("layout", {})
    return [(name, axis) for name, axis in layout.items() if isinstance(axis, dict) and "ticktext" in axis]


def escape_labels(labels: Any) -> Any:
    """The same labels as plotly shows them letter by letter; line breaks (`<br>`) that a view put there stay."""
    if isinstance(labels, str):
        return BREAK.join(html.escape(line, quote=False) for line in labels.split(BREAK))
    return [escape_labels(label) for label in labels] if isinstance(labels, list | tuple) else labels
