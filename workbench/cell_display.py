"""The display of values in notebook cells: a question, its answer and a short table, readable without a kernel."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

MAX_TABLE_ROWS = 10  # of a table, at most
MAX_CELL_CHARS = 400  # characters of a cell or sentence
TABLE_CSS = "border-collapse:collapse;font-size:0.9em;margin:4px 0"
CELL = "padding:2px 10px 2px 0;text-align:left;vertical-align:top"


@dataclass(frozen=True)
class CellSummary:
    """A question, its answer in one sentence, and the rows of a table under its `headers`; `more` counts rows left out."""

    question: str
    answer: str
    headers: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()
    more: int = 0

    @classmethod
    def of_rows(cls, question: str, answer: str, headers: Sequence[str], rows: Iterable[Sequence[object]]) -> "CellSummary":
        """The same of a long table: its first rows, and how many there are beyond them."""
        every = list(rows)
        return cls(question, answer, headers, every[:MAX_TABLE_ROWS], max(len(every) - MAX_TABLE_ROWS, 0))

    @property
    def text(self) -> str:
        """Question and answer, two lines."""
        return f"{shorten(self.question)}\n{shorten(self.answer)}"

    @property
    def html(self) -> str:
        """Everything as HTML in the colours of the page around it, each text as its letters."""
        parts = [f"<strong>{escape(shorten(self.question))}</strong><br>{escape(shorten(self.answer))}"]
        if self.rows:
            heads = "".join(f"<th style='{CELL}' scope='col'>{escape(head)}</th>" for head in self.headers)
            parts.append(
                f"<table style='{TABLE_CSS}'><thead><tr>{heads}</tr></thead><tbody>{''.join(map(_render_row, self.rows))}"
            )
            parts.append("</tbody></table>")
        if self.more:
            parts.append(f"<small>and {self.more:,} more</small>")
        return f"<div>{''.join(parts)}</div>"


class ShownInCell:
    """A value that shows itself as the last expression of a cell, as `cell_summary` says."""

    def cell_summary(self) -> CellSummary:
        """What is shown."""
        raise NotImplementedError

    def _repr_mimebundle_(self, include: Collection[str] | None = None, exclude: Collection[str] | None = None) -> dict[str, Any]:
        """The value by MIME type, as IPython asks for it."""
        summary = self.cell_summary()
        return select_types({"text/plain": summary.text, "text/html": summary.html}, include, exclude)


def select_types(bundle: dict[str, Any], include: Collection[str] | None, exclude: Collection[str] | None) -> dict[str, Any]:
    """The entries of a bundle that are asked for."""
    return {kind: data for kind, data in bundle.items() if (not include or kind in include) and kind not in (exclude or ())}


def _render_row(row: Sequence[object]) -> str:
    """One row of a table."""
    return "<tr>" + "".join(f"<td style='{CELL}'>{escape(shorten(str(cell)))}</td>" for cell in row) + "</tr>"


def shorten(text: str) -> str:
    """A text in one line of bearable length."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_CELL_CHARS else f"{line[:MAX_CELL_CHARS]} …"
