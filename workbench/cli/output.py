"""What a command prints: one JSON document with --json, tables and sentences otherwise; progress only on a terminal."""

import json
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import typer

from workbench.cli.streams import is_unicode, write
from workbench.run_records import find_current_recorder

if TYPE_CHECKING:
    from workbench.intervals import Interval

BAR, SHORT_BAR = 36, 8  # characters of a progress bar: alone, and beside words of what a job is at
STYLES = re.compile("\x1b\\[[0-9;]*m")  # what makes text bold on a terminal
DEEP = 8  # spaces before a line that goes on below a label's text: its folds begin where it does
LABEL = re.compile(r" *\S+( \S+)*  +")  # what a line begins with, such as `  perplexity       `


def emit(facts: dict[str, Any], *, as_json: bool, text: str) -> None:
    """Print the facts as one JSON document, or the text a reader wants."""
    write(json.dumps(sanitize_json(facts), indent=2, ensure_ascii=not is_unicode(), allow_nan=False) if as_json else text)


def emit_page(facts: dict[str, Any], *, as_json: bool, text: str) -> None:
    """The same, where the text is sentences and tables: lines are folded at the width of the terminal, if there is one."""
    emit(facts, as_json=as_json, text="\n".join(fold_line(line) for line in text.split("\n")))


def fold_line(line: str, width: int | None = None) -> str:
    """One line as several of at most `width` characters, but for words that are longer; the others begin as far in as it does."""
    width = width or get_width()
    if width is None or len(STYLES.sub("", line)) <= width:
        return line
    start = line[: len(line) - len(line.lstrip())]
    hang = LABEL.match(line)
    further = " " * (hang.end() if hang and hang.end() < width // 2 else len(start) if len(start) > DEEP else len(start) + 2)
    return textwrap.fill(
        line.strip(), width, initial_indent=start, subsequent_indent=further, break_long_words=False, break_on_hyphens=False,
        drop_whitespace=True, replace_whitespace=False,
    )  # fmt: skip


def get_width() -> int | None:
    """Characters a line may have: COLUMNS, or what the terminal has; None where nobody watches, in a pipe or a file."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def sanitize_json(value: Any) -> Any:
    """JSON values; what JSON cannot write (NaN, infinity) is null."""
    if isinstance(value, dict):
        return {str(key): sanitize_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [sanitize_json(item) for item in value]
    if hasattr(value, "item"):  # a number of numpy or torch
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def format_with_interval(value: float, interval: "Interval | None", tokens: int, digits: int = 3, unit: str = "") -> str:
    """A figure of `tokens` tokens with its 95 % interval, or why it has none."""
    from workbench.intervals import format_interval

    return f"{value:.{digits}f}{unit}  ({format_interval(interval, tokens, f'.{digits}f')})"


def format_kl(value: float, interval: "Interval | None", tokens: int) -> str:
    """A KL with its unit and interval."""
    return format_with_interval(value, interval, tokens, 5, " nats per token")


class Report(Protocol):
    """Takes how far a job is: `done` of `total`, and `doing` where it says in words what it is at."""

    def __call__(self, done: float, total: float, doing: str | None = None) -> None:
        """Show it."""


@contextmanager
def show_progress(label: str, *, quiet: bool) -> Iterator[Report]:
    """Takes `(done, total)` for the record of the run, and for a bar on standard error unless `quiet` or nobody watches.

    Beside the bar stands `label`, or what the job says it is at.
    """
    recorder = find_current_recorder()

    def record(done: float, total: float, doing: str | None = None) -> None:
        if recorder is not None:
            recorder.report(doing or label, done / max(total, 1))

    record(0, 1)
    if quiet or not sys.stderr.isatty():
        yield record
        return
    with typer.progressbar(length=1000, label=label, file=sys.stderr, width=BAR) as bar:

        def show(done: float, total: float, doing: str | None = None) -> None:
            bar.label, bar.width, bar.show_eta = doing or label, SHORT_BAR if doing else BAR, not doing
            if doing:
                bar.render_progress()
            bar.update(int(1000 * done / max(total, 1)) - bar.pos)
            record(done, total, doing)

        yield show
