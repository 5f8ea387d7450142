"""The layer map: every layer of a model as one cell, block by block, coloured by a column of the layer table."""

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis import glossary
from workbench.analysis.weights.sketch_cache import Moments
from workbench.models.layers import split_name
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme

OUTSIDE = "outside"  # the row of layers that belong to no block, such as the output head
LEVEL = 48  # letters of all column labels up to which they stand level
MAX_WRITTEN = 96  # beyond this many cells the numbers inside them are too small to read
QUESTIONS = {
    "parameters": "Where are the weights?",
    "std": "Which layers have the largest spread of weights?",
    "absmax": "Which layers hold the largest weights?",
    "kurtosis": "Which layers have heavy tails?",
    "outlier_share": "Which layers have outliers?",
    "bits_per_weight": "How many bits does each layer store?",
    "relative_error": "Which layers have the largest weight error?",
    "output_error": "Which layers have the largest output error?",
    "sensitivity": "Which layers is the model most sensitive to?",
    "fork_blame": "Which layers are to blame for the fork?",
    "error_difference": "Which layers lose more than in the other run?",
    "bits_difference": "Which layers store more than in the other run?",
}
SIGNED = ("error_difference", "bits_difference")  # differences of two runs, coloured from blue (less) to orange (more)


def draw_layer_map(
    layers: pd.DataFrame,
    column: str,
    selected: str | None,
    *,
    marked: Collection[str] = (),
    painted: Collection[str] = (),
    theme: Theme = themes.LIGHT,
) -> Figure:
    """The layer map of `layers` (name, block, matrix and the numbers), coloured by `column`; one cell a layer. The `selected`
    layer has a frame, `marked` ones a dotted one, and `painted` ones a corner. A box drawn over cells selects their points.
    """
    labels = _label_matrices(layers["matrix"])
    layers = layers.assign(row=[label_block(block) for block in layers["block"]], short=layers["matrix"].map(labels))
    rows, matrices = list(dict.fromkeys(layers["row"])), list(dict.fromkeys(layers["short"]))
    values = np.full((len(rows), len(matrices)), np.nan)
    names = np.full(values.shape, "", dtype=object)
    written = np.full(values.shape, "", dtype=object)
    for line in layers.itertuples():
        at = rows.index(line.row), matrices.index(line.short)
        value = getattr(line, column)
        values[at] = np.nan if value is None else value
        names[at] = line.name
        written[at] = glossary.format_value(column, value)
    shown = [label.replace("_proj", "") for label in matrices]
    plot = {
        "data": [
            _build_heatmap(values, rows, matrices, names, written) | _build_scale(values, column),
            _build_cell_points(rows, matrices, names),
        ],
        "layout": themes.build_layout(
            theme,
            height=60 + max(160, 34 * len(rows)),
            margin={"l": 8, "r": 8, "t": 8, "b": 8},
            xaxis={
                "side": "top",
                "tickangle": 0 if len(shown) * max(map(len, shown), default=0) <= LEVEL else -45,
                "tickvals": matrices,
                "ticktext": shown,
                "showgrid": False,
                "fixedrange": True,
                "type": "category",
            },
            yaxis={
                "autorange": "reversed",
                "showgrid": False,
                "fixedrange": True,
                "type": "category",
                "title": {"text": "block"},
            },
            dragmode="select",
            activeselection={"opacity": 0},
            newselection={"line": {"color": theme.accent, "dash": "dot", "width": 1}},
            shapes=[
                *(_build_cell_corner(*cell, theme) for cell in _find_cells(names, painted)),
                *(_build_cell_outline(*cell, theme, "dot") for cell in _find_cells(names, marked)),
                *(_build_cell_outline(*cell, theme) for cell in _find_cells(names, [selected])),
            ],
            annotations=_build_cell_numbers(values, signed=column in SIGNED) if values.size <= MAX_WRITTEN else [],
        ),
    }
    return Figure(
        QUESTIONS.get(column, f"How do layers differ in {glossary.label_column(column)}?"),
        _describe_layer_map(layers, column),
        plot,
        layers,
    )


def add_moments_sentence(figure: Figure, moments: Moments) -> Figure:
    """The map with a sentence about all weights that have been read, taken together."""
    together = (
        f" All {moments.weights:,} weights together: spread {moments.std:.3g}, kurtosis {moments.kurtosis:.3g}, "
        f"largest {moments.absmax:.3g}."
    )
    return replace(figure, answer=figure.answer + together)


def _build_heatmap(
    values: np.ndarray, rows: list[str], matrices: list[str], names: np.ndarray, written: np.ndarray
) -> dict[str, Any]:
    """The cells; their names travel along, so that a click tells which layer it hit."""
    return {
        "type": "heatmap",
        "z": values.tolist(),
        "x": matrices,
        "y": rows,
        "customdata": np.dstack([names, written]).tolist(),
        "hovertemplate": "%{customdata[0]}<br><b>%{customdata[1]}</b><extra></extra>",
        "hoverongaps": False,
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }


def _build_scale(values: np.ndarray, column: str) -> dict[str, Any]:
    """Cividis for what is measured; for a difference a scale from blue over white to orange, with 0 in its middle."""
    if column not in SIGNED:
        return {"colorscale": themes.SEQUENTIAL, "zauto": True}
    limit = _find_limit(values)
    return {"colorscale": themes.DIVERGING, "zauto": False, "zmin": -limit, "zmax": limit}


def _find_limit(values: np.ndarray) -> float:
    """The largest magnitude, 1 where all differences are 0 or nothing is measured."""
    measured = np.abs(values[~np.isnan(values)])
    return float(measured.max(initial=0.0)) or 1.0


def _build_cell_numbers(values: np.ndarray, *, signed: bool = False) -> list[dict[str, Any]]:
    """The cells' numbers, white on the dark half of the scale and dark on the light one; of a signed scale the ends are dark."""
    measured = values[~np.isnan(values)]
    middle = (measured.min() + measured.max()) / 2 if measured.size else 0.0
    dark = np.abs(values) > 0.8 * _find_limit(values) if signed else values < middle
    return [
        {
            "x": col,
            "y": row,
            "text": format_short_number(value),
            "showarrow": False,
            "font": {"size": 11, "color": "#ffffff" if dark[row, col] else "#10151a"},
        }
        for (row, col), value in np.ndenumerate(values)
        if not np.isnan(value)
    ]


def _find_cells(names: np.ndarray, layers: Collection[str | None]) -> list[tuple[int, int]]:
    """Row and column of each of these layers."""
    return [(int(row), int(col)) for row, col in np.argwhere(np.isin(names, [layer for layer in layers if layer]))]


def _build_cell_points(rows: list[str], matrices: list[str], names: np.ndarray) -> dict[str, Any]:
    """An invisible point in every cell: Plotly's box selects points, and no cells of a heat map."""
    cells = np.argwhere(names != "")
    unseen = {"marker": {"opacity": 0}}
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [matrices[col] for _, col in cells],
        "y": [rows[row] for row, _ in cells],
        "customdata": [names[row, col] for row, col in cells],
        "hoverinfo": "skip",
        "showlegend": False,
        "selected": unseen,
        "unselected": unseen,
        **unseen,
    }


def _build_cell_corner(row: int, col: int, theme: Theme) -> dict[str, Any]:
    """A corner of a painted cell, in the colour of what is quantized."""
    left, top = col - 0.47, row - 0.45
    path = f"M {left} {top} L {left + 0.34} {top} L {left} {top + 0.4} Z"
    return {"type": "path", "path": path, "fillcolor": theme.quantized, "line": {"color": theme.surface, "width": 1}}


def _build_cell_outline(row: int, col: int, theme: Theme, dash: str = "solid") -> dict[str, Any]:
    """A frame around the selected cell, a dotted one around a marked one."""
    return {
        "type": "rect",
        "x0": col - 0.5,
        "x1": col + 0.5,
        "y0": row - 0.5,
        "y1": row + 0.5,
        "line": {"color": theme.accent, "width": 3, "dash": dash},
        "fillcolor": "rgba(0,0,0,0)",
    }


def _describe_layer_map(layers: pd.DataFrame, column: str) -> str:
    """Who is highest and who lowest; for a difference also where it is less, and where more."""
    measured = layers.dropna(subset=[column])
    if column in SIGNED and not measured.empty:
        return _describe_signed_map(measured, column)
    if measured.empty:
        return (
            f"No layer has a value for {glossary.label_column(column)} yet: quantize a layer, or the whole model, on the right."
        )
    top, low = measured.loc[measured[column].astype(float).idxmax()], measured.loc[measured[column].astype(float).idxmin()]
    name = glossary.label_column(column)
    text = f"Highest {name}: {label_layer(top)} ({glossary.format_value(column, top[column])})"
    if len(measured) > 1 and top[column] == low[column]:
        return f"All {len(measured)} layers have the same {name}: {glossary.format_value(column, top[column])}."
    if len(measured) > 1:
        text += f"; lowest: {label_layer(low)} ({glossary.format_value(column, low[column])})"
    share = f" ({len(measured)} of {len(layers)} layers measured)" if len(measured) < len(layers) else ""
    return f"{text}{share}."


def _describe_signed_map(measured: pd.DataFrame, column: str) -> str:
    """How many layers have less than in the other run, how many more, and which is furthest on each side."""
    values, what = measured[column].astype(float), "error" if column == "error_difference" else "stored bits"
    if not values.any():
        return f"All {len(measured)} layers have the same {what} in both runs."
    parts = [
        f"{int((values < 0).sum())} of {len(measured)} layers have less {what} (blue), {int((values > 0).sum())} more (orange)"
    ]
    for index, side in ((values.idxmin(), values.min() < 0), (values.idxmax(), values.max() > 0)):
        if side:
            parts.append(f"{label_layer(measured.loc[index])} {glossary.format_value(column, values[index])}")
    return "; ".join(parts).replace("-", "−") + "."


def label_layer(layer: pd.Series) -> str:
    """A layer as people say it: `block 3 · down_proj`."""
    short = shorten_matrix_name(layer["matrix"])
    row = label_block(layer["block"])
    return short if row == OUTSIDE else f"block {row} · {short}"


def label_layer_name(name: str) -> str:
    """The full name of a layer as people say it."""
    block, matrix = split_name(name) or (None, name)
    return label_layer(pd.Series({"block": block, "matrix": matrix}))


def label_block(block: Any) -> str:
    """The label of a block's row; layers without a block share one row."""
    return OUTSIDE if block is None or pd.isna(block) or block < 0 else str(int(block))


def shorten_matrix_name(matrix: str) -> str:
    """The last word of a matrix name, and an expert's number: `mlp.down_proj` is `down_proj`, `experts.w1.3` is `w1.3`."""
    words = matrix.split(".")
    return ".".join(words[-2:] if words[-1].isdecimal() else words[-1:])


def _label_matrices(matrices: Iterable[str]) -> dict[str, str]:
    """One label a matrix, short where no other matrix has the same: a column must not hide another one's layers."""
    names = list(dict.fromkeys(matrices))
    counts = Counter(map(shorten_matrix_name, names))
    return {name: shorten_matrix_name(name) if counts[shorten_matrix_name(name)] == 1 else name for name in names}


def format_short_number(value: float) -> str:
    """A number in at most four characters: `.57`, `-.04`, `12`, `66k`; `~0` below a hundredth."""
    if np.isnan(value):
        return ""
    size = abs(value)
    if size >= 1000:
        return f"{value / 1e6:.1f}M" if size >= 1e6 else f"{value / 1e3:.0f}k"
    if size >= 1:
        return f"{value:.0f}" if size >= 10 else f"{value:.1f}"
    return f"{value:.2f}".replace("0.", ".") if size >= 0.005 else ("0" if value == 0 else "~0")
