"""Selection by number: an input field for indices such as `17, 40-43`, as an alternative to drawing a box."""

from collections.abc import Iterable, Sequence
from typing import Any

import panel as pn

from workbench.errors import WorkbenchError
from workbench.widgets.base.component import Component

MAX_RANGE_NUMBERS = 4096  # numbers that one range may stand for
THINGS = {
    "channels": "input channels (columns of the weight)",
    "rows": "rows of the weight (output features)",
    "codes": "codewords of the codebook",
}


def parse_numbers(text: str) -> list[int]:
    """The whole numbers in `17, 40-43`; WorkbenchError for anything else."""
    parsed: list[int] = []
    for piece in filter(None, (part.strip() for part in text.replace(";", ",").replace("–", "-").split(","))):
        first, dash, last = piece.partition("-")
        if not first.strip().isdecimal() or (dash and not last.strip().isdecimal()):
            raise WorkbenchError(f"{piece!r} is not a number; write numbers and ranges from 0, e.g. 17, 40-43.")
        low, high = int(first), int(last or first)
        if not low <= high < low + MAX_RANGE_NUMBERS:
            raise WorkbenchError(
                f"the range {piece!r} is empty or longer than {MAX_RANGE_NUMBERS}; write the smaller number first."
            )
        parsed += range(low, high + 1)
    return parsed


def format_numbers(marks: Iterable[int]) -> str:
    """Numbers as they are typed, neighbours as ranges: `17, 40-43`."""
    runs: list[list[int]] = []
    for mark in sorted(set(marks)):
        if runs and mark == runs[-1][-1] + 1:
            runs[-1].append(mark)
        else:
            runs.append([mark])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


class MarkInput(Component):
    """One kind of mark of the selection as a text field; `kind` is a field of `Selection`, set by the subclasses below."""

    watches = ("choice", "selection")
    waits = False  # marks need no result
    kind = "channels"

    def build(self) -> pn.viewable.Viewable:
        """The field."""
        self.field = pn.widgets.TextInput(
            label=f"Marked {self.kind}",
            placeholder="e.g. 17, 40-43",
            description=f"Indices of {THINGS[self.kind]} to mark in all views, counted from 0; empty for none.",
            width=210,
        )
        self.field.param.watch(lambda event: self.notices.guard(lambda: self._typed(event.new)), "value")
        return self.field

    def refresh(self) -> None:
        """The marks as they are."""
        self.field.value = format_numbers(self._marks())

    def _marks(self) -> Sequence[int]:
        marks: Sequence[int] = getattr(self.session.selection, self.kind)
        return marks

    def _typed(self, text: str) -> None:
        if text == format_numbers(self._marks()):
            return
        try:
            self.live.mark(**{self.kind: parse_numbers(text)})
        finally:  # what cannot be marked does not stay in the field
            self.refresh()


class ChannelInput(MarkInput):
    """Marked channels."""

    kind = "channels"


class RowInput(MarkInput):
    """Marked rows."""

    kind = "rows"


class CodeInput(MarkInput):
    """Marked codewords."""

    kind = "codes"


def list_brushed_points(event: Any) -> list[int]:
    """Places in the first trace of the points that a box or lasso holds, from a plot's `selected_data`."""
    points = (event.new or {}).get("points") or []
    return [int(point["pointNumber"]) for point in points if point.get("curveNumber") == 0]
