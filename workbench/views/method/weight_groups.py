"""Groups of weights as an image: pruned, by magnitude, salient columns."""

from typing import Any

import numpy as np

from workbench.analysis.method.weight_groups import SALIENT_COLUMNS, GroupMap
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme

SHOWN_ROWS, SHOWN_COLS = 96, 256  # weights shown at once, each a cell of its own
SMALL_TO_LARGE = ["#00306f", "#4c5a6d", "#8e8a78", "#d6c75a"]  # along cividis
SALIENT_COLOURS = ["#c2255c", "#ff9dbf"]


def draw_weight_groups(groups: GroupMap, row: int = 0, col: int = 0, *, theme: Theme = themes.LIGHT) -> Figure:
    """A window of the layer, from `row` and `col` on, every weight in the colour of its group."""
    names = groups.table["group"].tolist()
    palette, labels = choose_group_colours(names, theme), [name.replace(", ", ",<br>") for name in names]
    part = groups.groups[row : row + SHOWN_ROWS, col : col + SHOWN_COLS]
    steps = [[edge / len(names), palette[i]] for i in range(len(names)) for edge in (i, i + 1)]
    trace: dict[str, Any] = {
        "type": "heatmap",
        "z": part,
        "x0": col,
        "y0": row,
        "colorscale": steps,
        "zmin": -0.5,
        "zmax": len(names) - 0.5,
        "colorbar": themes.build_colorbar(theme, "") | {"tickvals": list(range(len(names))), "ticktext": labels},
        "hovertemplate": "row %{y}, column %{x}<extra></extra>",
    }
    layout = themes.build_layout(
        theme,
        x="column (input feature, in the coded basis)",
        y="row (output feature)",
        height=380,
        xaxis={"showgrid": False},
        yaxis={"showgrid": False, "autorange": "reversed"},
    )
    return Figure(
        "Which weight belongs to which group?",
        _describe_weight_groups(groups, part),
        {"data": [trace], "layout": layout},
        groups.table,
    )


def choose_group_colours(names: list[str], theme: Theme) -> list[str]:
    """One colour a group: pruned as the border, magnitudes from dark to bright, salient columns raspberry."""
    salient, plain = iter(SALIENT_COLOURS), [name for name in names if name != "pruned" and not name.startswith(SALIENT_COLUMNS)]
    places = np.linspace(0, len(SMALL_TO_LARGE) - 1, max(len(plain), 2)).round().astype(int)
    bright = iter(SMALL_TO_LARGE[index] for index in places)
    return [theme.border if name == "pruned" else next(salient if name.startswith(SALIENT_COLUMNS) else bright) for name in names]


def _describe_weight_groups(groups: GroupMap, part: np.ndarray) -> str:
    """Shares of all groups, and the price of knowing them."""
    lines = zip(groups.table["group"], groups.table["share"], strict=True)
    shares = ", ".join(f"{themes.format_percent(share)} {name}" for name, share in lines)
    return (
        f"{shares}; the map of groups costs {themes.format_bits(groups.map_bits)} bits per weight. Shown: {part.shape[0]} "
        f"× {part.shape[1]}."
    )
