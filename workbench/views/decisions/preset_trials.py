"""Every preset on one layer as a dot: error upwards, stored bits across, joined where it is the same method at other rates."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis import glossary
from workbench.presets.preset import FAMILIES
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme

QUESTION = "Which method loses least?"
HEIGHT, WIDTH = 320, 520  # pixels: of the figure, and of the least width it is expected to have
MARGINS = {"l": 56, "r": 16, "t": 8, "b": 40}  # pixels
LETTER, LINE, DOT = 6.5, 14, 6  # pixels: of a label's letter and line, and of half a dot
SIDES = ("bottom right", "bottom left", "top right", "top left")  # of a dot, where its label may stand
Box = tuple[float, float, float, float]
BUDGETS = (1, 2, 4)  # stored bits a weight at which the answer names a method


def choose_family_color(family: str) -> str:
    """The colour of a family of methods, in the figure and wherever its methods are listed."""
    return themes.CATEGORIES[FAMILIES.index(family) - 1]


def draw_preset_trials(
    table: pd.DataFrame,
    current: str | None,
    row_count: int,
    *,
    height: int = HEIGHT,
    width: int = WIDTH,
    theme: Theme = themes.LIGHT,
) -> Figure:
    """Draw every preset as a dot of error over stored bits on one layer.

    The methods that the answer names are labelled where their names meet no other dot and no other label.

    Args:
        table: The table of `wb.measures.preset_trials`.
        current: The recipe to mark, or None.
        row_count: The number of rows of the layer.
        height: The height of the figure in pixels.
        width: The least width in pixels that it is expected to have; labels are placed for it.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import pandas as pd
        >>> import workbench as wb
        >>> trials = pd.DataFrame({"title": ["GPTQ", "QTIP"], "family": ["compensation", "codebook"], "recipe": ["gptq", "qtip"]})
        >>> trials = trials.assign(bits_per_weight=[2.14, 2.06], nominal_bits=2.0, relative_error=[0.14, 0.08], output_error=0.05)
        >>> wb.figures.preset_trials(trials.assign(tried_rows=64), None, 256).table["title"].tolist()
        ['GPTQ', 'QTIP']
    """
    column = _choose_error_column(table)
    errors = table[column].astype(float)
    positive = bool((errors > 0).all())
    labelled = dict.fromkeys(_find_best(table, column).values())
    sides = _find_label_sides(
        _compute_pixels(table["bits_per_weight"], errors, positive, width, height), table["title"], labelled
    )
    traces = [_draw_method(rows, sides, column, current, theme) for _, rows in table.groupby(["family", "title"], sort=False)]
    layout = themes.build_layout(
        theme,
        x="stored bits per weight",
        y=glossary.label_column(column) + (" (log scale)" if positive else ""),
        height=height,
        showlegend=False,
        hovermode="closest",
        xaxis={"rangemode": "tozero"},
        yaxis={"type": "log", "range": np.log10([errors.min() / 2, errors.max() * 2]).tolist(), "tickformat": "~g"}
        if positive
        else {},
        margin=MARGINS,
    )
    return Figure(QUESTION, _describe_best(table, column, row_count), {"data": traces, "layout": layout}, table)


def _compute_pixels(bits: pd.Series, errors: pd.Series, positive: bool, width: int, height: int) -> pd.DataFrame:
    """About where the dots are: x from the left and y from the top of the area inside the axes, whose size is that of `attrs`."""
    area = width - MARGINS["l"] - MARGINS["r"], height - MARGINS["t"] - MARGINS["b"]
    heights = np.log10(errors) if positive else errors
    low, high = (heights.min() - np.log10(2), heights.max() + np.log10(2)) if positive else (heights.min(), heights.max())
    down = (high - heights) / ((high - low) or 1.0)
    places = pd.DataFrame({"x": bits / (1.05 * bits.max()) * area[0], "y": down * area[1]})
    places.attrs["area"] = area
    return places


def _find_label_sides(places: pd.DataFrame, titles: pd.Series, rows: Iterable[int]) -> dict[int, str]:
    """The side of its dot for the label of each of these `rows` that has a free one: clear of all dots and labels before it."""
    dots = [(x - DOT, y - DOT, x + DOT, y + DOT) for x, y in zip(places["x"], places["y"], strict=True)]
    sides, occupied = dict[int, str](), dots
    for row in rows:
        x, y = places.loc[row]
        length = LETTER * len(titles[row])
        for side in SIDES:
            left, top = x + DOT if "right" in side else x - DOT - length, y if "bottom" in side else y - LINE
            box = left, top + (1 if "bottom" in side else -1), left + length, top + LINE
            others = [other for other in occupied if other is not dots[titles.index.get_loc(row)]]
            inside = (
                left >= 0 and box[2] <= places.attrs["area"][0] + MARGINS["r"] and top >= 0 and box[3] <= places.attrs["area"][1]
            )
            if inside and not any(_is_overlapping(box, other) for other in others):
                sides[row], occupied = side, [*occupied, box]
                break
    return sides


def _is_overlapping(box: Box, other: Box) -> bool:
    """Whether two boxes (left, top, right, bottom) have a common part."""
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def _draw_method(rows: pd.DataFrame, sides: dict[int, str], column: str, current: str | None, theme: Theme) -> dict[str, Any]:
    """One method: a dot for each of its rates, joined by a line."""
    color = choose_family_color(rows["family"].iloc[0])
    marked = rows["recipe"] == current
    return {
        "type": "scatter",
        "mode": "lines+markers+text",
        "x": rows["bits_per_weight"].tolist(),
        "y": rows[column].astype(float).tolist(),
        "name": rows["title"].iloc[0],
        "text": [title if row in sides else "" for row, title in rows["title"].items()],
        "textposition": [sides.get(row, SIDES[0]) for row in rows.index],
        "textfont": {"size": 11, "color": theme.text},
        "customdata": rows["recipe"].tolist(),
        "hovertext": [f"{title} ({family})" for title, family in zip(rows["title"], rows["family"], strict=True)],
        "line": {"color": color, "width": 1},
        "marker": {
            "color": color,
            "size": [14 if mark else 9 for mark in marked],
            "line": {
                "color": [theme.accent if mark else theme.surface for mark in marked],
                "width": [3 if m else 1 for m in marked],
            },
        },
        "cliponaxis": False,
        "hovertemplate": f"%{{hovertext}}<br>%{{x:.2f}} stored bits, {glossary.label_column(column)} %{{y:.3g}}<extra></extra>",
    }


def _choose_error_column(table: pd.DataFrame) -> str:
    """The output error where all rows have one, else the weight error."""
    return "output_error" if len(table) and table["output_error"].notna().all() else "relative_error"


def _find_best(table: pd.DataFrame, column: str) -> dict[int, int]:
    """The row with the least error among those that store so much at most, by budget; budgets without a row are left out."""
    errors, bits = table[column].astype(float), table["bits_per_weight"]
    return {budget: int(errors[bits <= budget].idxmin()) for budget in BUDGETS if (bits <= budget).any()}


def _describe_best(table: pd.DataFrame, column: str, row_count: int) -> str:
    """On how many rows the methods were tried, the fewest where they differ, and the least error within each budget."""
    fewest = int(table["tried_rows"].min())
    where = f"On all {row_count:,} rows" if fewest == row_count else f"≈ On {fewest:,} of {row_count:,} rows"
    best, what = _find_best(table, column), glossary.label_column(column)
    if not best:
        best = {math.ceil(table["bits_per_weight"].min()): int(table["bits_per_weight"].idxmin())}
    least = [
        f"{themes.format_error(float(table.loc[row, column]))} at up to {themes.format_count(budget, 'stored bit')}"
        f" ({table.loc[row, 'title']})"
        for budget, row in best.items()
    ]
    return f"{where}: lowest {what} {', '.join(least)}."
