"""What a command prints: one JSON document with --json, tables and sentences otherwise; progress only on a terminal."""

import json
import math
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

from workbench.cli.streams import is_unicode, write
from workbench.intervals import Interval, format_interval

if TYPE_CHECKING:
    import pandas as pd

LABEL = re.compile(r" *\S+( \S+)*  +")  # what a line begins with, such as `  perplexity       `


def emit(facts: dict[str, Any], *, as_json: bool, text: str) -> None:
    """Print the facts as one JSON document, or the text a reader wants."""
    write(json.dumps(sanitize_json(facts), indent=2, ensure_ascii=not is_unicode(), allow_nan=False) if as_json else text)


def emit_page(facts: dict[str, Any], *, as_json: bool, text: str) -> None:
    """The same, where the text is sentences and tables: its lines are folded at the width of the terminal (COLUMNS, or 80)."""
    emit(facts, as_json=as_json, text="\n".join(fold_line(line) for line in text.split("\n")))


def fold_line(line: str, width: int | None = None) -> str:
    """One line as several of at most `width` characters, but for words that are longer; the others begin as far in as it does."""
    width = width or _get_terminal_width()
    if len(line) <= width:
        return line
    start = line[: len(line) - len(line.lstrip())]
    hang = LABEL.match(line)
    further = " " * (hang.end() if hang and hang.end() < width // 2 else len(start) + 2)
    return textwrap.fill(
        line.strip(), width, initial_indent=start, subsequent_indent=further, break_long_words=False, break_on_hyphens=False,
        drop_whitespace=True, replace_whitespace=False,
    )  # fmt: skip


def _get_terminal_width() -> int:
    """Characters a line may have."""
    return shutil.get_terminal_size((80, 24)).columns


def format_table(table: "pd.DataFrame") -> str:
    """A table as text: short numbers, and headers of several words over several lines, so that it stays narrow."""
    from workbench.analysis import glossary

    cells = {name: [glossary.format_value(name, value) for value in table[name]] for name in table}
    heads = {name: name.split("_") for name in cells}
    height = max((len(words) for words in heads.values()), default=0)
    numeric = {name for name in cells if table[name].dtype.kind in "iufb"}
    lines = []
    for row in range(-height, len(table)):
        parts = []
        for name, column in cells.items():
            words = [""] * (height - len(heads[name])) + heads[name]
            size = max(map(len, [*column, *words]))
            cell = words[row + height] if row < 0 else column[row]
            parts.append(cell.rjust(size) if name in numeric else cell.ljust(size))
        lines.append("  ".join(parts).rstrip())
    return "\n".join(lines)


def sanitize_json(value: Any) -> Any:
    """JSON values; what JSON cannot write (NaN, infinity) is null."""
    if isinstance(value, dict):
        return {str(key): sanitize_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [sanitize_json(item) for item in value]
    if hasattr(value, "item"):  # a number of numpy or torch
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def format_with_interval(value: float, interval: Interval | None, tokens: int, digits: int = 3) -> str:
    """A figure of `tokens` tokens with its 95 % interval, or why it has none."""
    return f"{value:.{digits}f}  ({format_interval(interval, tokens, f'.{digits}f')})"


@contextmanager
def show_progress(label: str, *, quiet: bool) -> Iterator[Callable[[float, float], None]]:
    """A bar on standard error that is told `(done, total)`; nothing where `quiet` or where nobody watches."""
    if quiet or not sys.stderr.isatty():
        yield lambda *_: None
        return
    with typer.progressbar(length=1000, label=label, file=sys.stderr) as bar:
        yield lambda done, total: bar.update(int(1000 * done / max(total, 1)) - bar.pos)
