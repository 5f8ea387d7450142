"""One figure that answers one question, with the answer as a sentence and the same data as a table."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Figure:
    """`question` is the title, `answer` one sentence with numbers, `plot` a plotly figure dict, `table` its twin.

    The table holds what the plot shows, so that a reader who cannot see the plot misses nothing.
    """

    question: str
    answer: str
    plot: dict[str, Any]
    table: "pd.DataFrame"
