"""Tables of text: as wide as the terminal, with long cells folded and nothing cut; a row is one line where nobody watches."""

import re
import sys
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

from workbench.cli.output import get_width

if TYPE_CHECKING:
    import pandas as pd
    from rich.table import Table

UNBOUNDED = 1 << 16  # characters of a line that nobody watches
GAP, INDENT = 2, 2
MIN_FOLDED = 8  # characters of a folded cell, at least
BLOCK_NAME = re.compile(r"(.*?\.\d+)\.(.+)")  # of a layer's name, the block and the matrix

Row = Sequence[str]


@dataclass(frozen=True)
class Column:
    """A column's title, and how its cells are set: numbers to the right, text that `folds` in the room that is left."""

    title: str
    right: bool = False
    folds: bool = False


def format_groups(columns: Sequence[Column], groups: Mapping[str, Sequence[Row]]) -> str:
    """Rows below the titles of their groups, all in the same columns; a group without a title is not indented."""
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    rows = [row for group in groups.values() for row in group]
    heads = _stack_titles(columns, rows)
    indent = INDENT if any(groups) else 0
    width = get_width() or UNBOUNDED
    sizes = _fit_columns(columns, [heads, *rows], width - indent)
    page = StringIO()  # rich writes to its file even what it captures, which fails where standard output cannot be written
    styled = True if sys.stdout.isatty() else None
    console = Console(file=page, force_terminal=styled, width=width, highlight=False, markup=False, emoji=False)
    console.print(Padding(_make_table(columns, sizes, [heads], "bold"), (0, 0, 0, indent)))
    for title, group in groups.items():
        if title:
            console.print(Text(title, style="bold"))
        console.print(Padding(_make_table(columns, sizes, group), (0, 0, 0, indent if title else 0)))
    return "\n".join(line.rstrip() for line in page.getvalue().splitlines())


def format_rows(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    """Rows without groups."""
    return format_groups(columns, {"": rows})


def format_table(table: "pd.DataFrame", folds: Hashable | None = None) -> str:
    """A DataFrame with short numbers, and headers of several words over several lines; the column `folds` takes little room."""
    return format_rows(*_read_frame(table, folds))


def format_layer_table(table: "pd.DataFrame") -> str:
    """A DataFrame of layers with their `name`, grouped by block: long names would leave no room for numbers."""
    columns, rows = _read_frame(table, "name")
    matrix = Column("matrix", folds=True)
    return format_groups([matrix, *columns[1:]], group_by_block((name, [name, *cells]) for name, *cells in rows))


def group_by_block(rows: Iterable[tuple[str, Row]]) -> dict[str, list[Row]]:
    """Rows of layers by their blocks; the first cell of each, the layer's name, becomes the name of the matrix in its block."""
    groups: dict[str, list[Row]] = {}
    for name, cells in rows:
        parts = BLOCK_NAME.fullmatch(name)
        block, matrix = parts.groups() if parts else ("outside the blocks", name)
        groups.setdefault(block, []).append([matrix, *cells[1:]])
    return groups


def _read_frame(table: "pd.DataFrame", folds: Hashable | None) -> tuple[list[Column], list[Row]]:
    """The columns of a DataFrame, and its rows as text."""
    from workbench.analysis import glossary

    columns = [Column(str(name).replace("_", " "), right=table[name].dtype.kind in "iufb", folds=name == folds) for name in table]
    cells: list[Any] = [[glossary.format_value(name, value) for value in table[name]] for name in table]
    return columns, list(zip(*cells, strict=True))


def _make_table(columns: Sequence[Column], sizes: Sequence[int], rows: Iterable[Row], style: str = "") -> "Table":
    """Rows in columns of these sizes, in which longer cells are folded."""
    from rich.table import Table

    table = Table(box=None, show_header=False, padding=(0, GAP, 0, 0), pad_edge=False)
    for column, size in zip(columns, sizes, strict=True):
        table.add_column(justify="right" if column.right else "left", overflow="fold", width=size)
    for row in rows:
        table.add_row(*row, style=style)
    return table


def _stack_titles(columns: Sequence[Column], rows: Sequence[Row]) -> list[str]:
    """Titles over as many lines as keep them within their columns, but for words that are longer; all end on the last line."""
    titles = [
        [column.title] if column.folds else _stack_words(column.title.split(), _measure_cells([row[number] for row in rows]))
        for number, column in enumerate(columns)
    ]
    height = max((len(lines) for lines in titles), default=0)
    return ["\n".join([""] * (height - len(lines)) + lines) for lines in titles]


def _stack_words(words: Sequence[str], width: int) -> list[str]:
    """Words in lines as wide as the longest word, or `width` where that is more."""
    width = max([width, *map(len, words)])
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _fit_columns(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[int]:
    """The width of each column: that of its widest cell, but where not all fit, those that fold share what the others leave."""
    sizes = [_measure_cells([row[number] for row in rows]) for number in range(len(columns))]
    room = width - GAP * (len(columns) - 1) - sum(size for column, size in zip(columns, sizes, strict=True) if not column.folds)
    folding = sorted((number for number, column in enumerate(columns) if column.folds), key=sizes.__getitem__)
    for served, number in enumerate(folding):  # the narrowest first: what it does not need is left for the others
        sizes[number] = min(sizes[number], max(MIN_FOLDED, room // (len(folding) - served)))
        room -= sizes[number]
    return sizes


def _measure_cells(cells: Sequence[str]) -> int:
    """Characters of the widest line of these cells."""
    from rich.cells import cell_len

    return max((cell_len(line) for cell in cells for line in cell.split("\n")), default=0)
