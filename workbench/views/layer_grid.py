"""A grid of layers: one cell for every layer, block by block, coloured by one column of a table of layers."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis import glossary
from workbench.views import theme as themes
from workbench.views.layer_names import label_block, label_matrices
from workbench.views.theme import Theme

LEVEL = 48  # letters of all column labels up to which they stand level
MARGIN = 60  # pixels of a grid that are not cells
ROW, LOW_ROW = 56, 9  # pixels of a row, and of one where there are many
LEAST, MOST = 160, 442  # pixels of all rows: few are higher, and many are low once they would take more
MAX_TICKS = 24  # short labels that have room below a figure
WRITTEN_ROW, WRITTEN_COLUMNS = 16, 12  # pixels of a row from which, and columns up to which, cells have room for their numbers


def draw_layer_grid(
    layers: pd.DataFrame,
    column: str,
    selected: str | None,
    *,
    marked: Collection[str] = (),
    painted: Collection[str] = (),
    signed: bool = False,
    notes: Sequence[str] = (),
    theme: Theme = themes.LIGHT,
) -> dict[str, Any]:
    """A plotly figure of `layers` (name, block, matrix and the numbers), coloured by `column`; one cell a layer.

    The `selected` layer has a frame, `marked` ones a dotted one, and `painted` ones a corner. `signed` values are coloured from
    blue over white to orange. `notes` are shown on hover, one for each layer. A box drawn over cells selects their points. Cells
    without room for their numbers have a colour scale beside them.
    """
    labels = label_matrices(layers["matrix"])
    layers = layers.assign(row=[label_block(block) for block in layers["block"]], short=layers["matrix"].map(labels))
    rows, matrices = list(dict.fromkeys(layers["row"])), list(dict.fromkeys(layers["short"]))
    values = np.full((len(rows), len(matrices)), np.nan)
    names, written, hover = (np.full(values.shape, "", dtype=object) for _ in range(3))
    for number, line in enumerate(layers.itertuples()):
        at = rows.index(line.row), matrices.index(line.short)
        value = getattr(line, column)
        values[at] = np.nan if value is None else value
        names[at] = line.name
        written[at] = glossary.format_value(column, value)
        hover[at] = notes[number] if notes else ""
    shown = [label.replace("_proj", "") for label in matrices]
    height = _compute_height(len(rows))
    has_numbers = height / max(len(rows), 1) >= WRITTEN_ROW and len(matrices) <= WRITTEN_COLUMNS
    heat = _build_heatmap(values, rows, matrices, np.dstack([names, written, hover])) | _build_scale(values, signed=signed)
    if not has_numbers:
        heat |= {"showscale": True, "colorbar": themes.build_colorbar(theme, glossary.label_column(column))}
    return {
        "data": [heat, _build_cell_points(rows, matrices, names)],
        "layout": themes.build_layout(
            theme,
            height=MARGIN + height,
            margin={"l": 8, "r": 8, "t": 8, "b": 8},
            # ranges that are computed leave room for the points, which is a whole row where rows are low
            xaxis={
                "range": [-0.5, len(matrices) - 0.5],
                "side": "top",
                "tickangle": 0 if len(shown) * max(map(len, shown), default=0) <= LEVEL else -45,
                "tickvals": matrices,
                "ticktext": shown,
                "showgrid": False,
                "fixedrange": True,
                "type": "category",
            },
            yaxis={
                "range": [len(rows) - 0.5, -0.5],
                **build_level_ticks(rows, rows),
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
            annotations=_build_cell_numbers(values, signed=signed) if has_numbers else [],
        ),
    }


def find_layer(plot: dict[str, Any], point: dict[str, Any]) -> str | None:
    """The layer at a `point` that Plotly tells of, by its labels, since Panel cannot read the `customdata` of a heat map; None
    beside the cells of layers."""
    heat, matrix, block = plot["data"][0], str(point.get("x")), str(point.get("y"))
    if matrix not in heat["x"] or block not in heat["y"]:
        return None
    return heat["customdata"][heat["y"].index(block)][heat["x"].index(matrix)][0] or None


def build_block_axis(layers: pd.DataFrame) -> dict[str, Any]:
    """An x axis for figures with a mark for each of these layers in order, at 0, 1, 2 …: its labels are the blocks' numbers,
    each in the middle of its layers."""
    blocks = pd.Series([label_block(block) for block in layers["block"]])
    centres = {block: float(np.mean(places.index)) for block, places in blocks.groupby(blocks, sort=False)}
    return build_level_ticks(list(centres.values()), list(centres))


def build_level_ticks(places: list[Any], labels: list[str]) -> dict[str, Any]:
    """Labels of an axis that stand level: every second, third … where there are too many."""
    step = max(1, -(-len(labels) // MAX_TICKS))
    return {
        "tickmode": "array",
        "tickvals": places[::step],
        "ticktext": labels[::step],
        "tickangle": 0,
        "showgrid": False,
    }


def _compute_height(rows: int) -> int:
    """Pixels of all rows."""
    return max(LEAST, min(ROW * rows, max(MOST, LOW_ROW * rows)))


def _build_heatmap(values: np.ndarray, rows: list[str], matrices: list[str], texts: np.ndarray) -> dict[str, Any]:
    """The cells; names, numbers and notes travel along, so that a click tells which layer it hit."""
    return {
        "type": "heatmap",
        "z": values.tolist(),
        "x": matrices,
        "y": rows,
        "customdata": texts.tolist(),
        "hovertemplate": "%{customdata[0]}<br><b>%{customdata[1]}</b>%{customdata[2]}<extra></extra>",
        "hoverongaps": False,
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }


def _build_scale(values: np.ndarray, *, signed: bool) -> dict[str, Any]:
    """Cividis for what is measured; for a difference a scale from blue over white to orange, with 0 in its middle."""
    if not signed:
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
    is_small = bool(measured.size and measured.min() >= 0 and measured.max() < 0.0995)
    return [
        {
            "x": col,
            "y": row,
            "text": format_short_number(value, digits=3 if is_small else 2),
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


def format_short_number(value: float, digits: int = 2) -> str:
    """A number in at most four characters: `.57`, `-.04`, `12`, `66k`; `~0` where so many `digits` show nothing of it."""
    if np.isnan(value):
        return ""
    size = abs(value)
    if size >= 1000:
        return f"{value / 1e6:.1f}M" if size >= 1e6 else f"{value / 1e3:.0f}k"
    if size >= 1:
        return f"{value:.0f}" if size >= 10 else f"{value:.1f}"
    text = f"{value:.{digits}f}".replace("0.", ".")
    return text if text.strip("-.0") else ("0" if value == 0 else "~0")
