"""What a command prints: one JSON document with --json, tables and sentences otherwise; progress only on a terminal."""

import json
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer

from workbench.cli.streams import is_unicode, write


def emit(facts: dict[str, Any], *, as_json: bool, text: str) -> None:
    """Print the facts as one JSON document, or the text a reader wants."""
    write(json.dumps(plain(facts), indent=2, ensure_ascii=not is_unicode(), allow_nan=False) if as_json else text)


def plain(value: Any) -> Any:
    """JSON values; what JSON cannot write (NaN, infinity) is null."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "item"):  # a number of numpy or torch
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def plus_minus(value: float, interval: tuple[float, float], digits: int = 3) -> str:
    """A figure with its 95 % interval."""
    low, high = interval
    return f"{value:.{digits}f}  (95 %: {low:.{digits}f} to {high:.{digits}f})"


@contextmanager
def progress(label: str, *, quiet: bool) -> Iterator[Callable[[float, float], None]]:
    """A bar on standard error that is told `(done, total)`; nothing where `quiet` or where nobody watches."""
    if quiet or not sys.stderr.isatty():
        yield lambda *_: None
        return
    with typer.progressbar(length=1000, label=label, file=sys.stderr) as bar:
        yield lambda done, total: bar.update(int(1000 * done / max(total, 1)) - bar.pos)
