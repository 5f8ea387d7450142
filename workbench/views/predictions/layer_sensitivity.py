"""Which layer is the most sensitive? The KL that each layer causes when it alone is quantized, from largest to smallest."""

from typing import Any

import pandas as pd

from workbench.intervals import format_interval
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.layer_grid import build_block_axis
from workbench.views.theme import Theme


def draw_layer_sensitivity(table: pd.DataFrame, *, theme: Theme = themes.LIGHT) -> Figure:
    """Draw the KL of each layer quantized alone, in the order of `table`, with intervals and half precision's noise.

    Args:
        table: What `wb.sensitivity` gives, for one recipe or several.
        theme: The colours, light ones when absent.

    Returns:
        The figure; its table has the same rows, most sensitive first.

    Example:
        >>> import workbench as wb
        >>> replay = wb.Replay(wb.open_model("builtin"), wb.text("evaluation"), tokens=128)
        >>> table = wb.sensitivity(replay, {"2 bits": wb.recipe("rtn", bits=2)}, layers="*.0.self_attn.*")
        >>> wb.figures.layer_sensitivity(table).question
        'Which layer is the most sensitive?'
    """
    layers = table.drop_duplicates("name").reset_index(drop=True)
    places = {str(name): position for position, name in enumerate(layers["name"])}
    ranks = table.groupby("name")["kl"].max().rank(ascending=False, method="first")
    table = table.assign(rank=table["name"].map(ranks)).sort_values(["rank", "recipe"]).drop(columns="rank")
    recipes = list(dict.fromkeys(table["recipe"]))
    colors = [theme.quantized] if len(recipes) == 1 else _repeat_colors(len(recipes))
    points = [
        _build_points(table[table["recipe"] == recipe], places, recipe, color, theme)
        for recipe, color in zip(recipes, colors, strict=True)
    ]
    noise = themes.build_noise_line([0, len(layers) - 1], float(table["floor"].iloc[0]), theme)
    layout = themes.build_layout(
        theme,
        x="block",
        y="KL, nats per token (log scale)",
        height=400,
        showlegend=True,
        yaxis=themes.LOGARITHMIC | {"tickformat": "~g"},
        xaxis=build_block_axis(layers),
    )
    answer = _describe_sensitivity(table)
    return Figure("Which layer is the most sensitive?", answer, {"data": [*points, noise], "layout": layout}, table)


def _build_points(rows: pd.DataFrame, places: dict[str, int], recipe: str, color: str, theme: Theme) -> dict[str, Any]:
    """The layers under one recipe as points with intervals."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": rows["name"].map(places).tolist(),
        "y": rows["kl"].tolist(),
        "name": recipe,
        "customdata": rows["name"].tolist(),
        "marker": {"size": 8, "color": color},
        "error_y": themes.build_error_bars(rows, "kl", theme.muted, thickness=1, width=2),
        "hovertemplate": "%{customdata}<br>KL alone %{y:.3g}<extra></extra>",
    }


def _describe_sensitivity(table: pd.DataFrame) -> str:
    """The worst layer with its interval, how many cannot be told from it, and how many cannot be told from noise."""
    worst = table.loc[table["kl"].idxmax()]
    rows = table[table["recipe"] == worst["recipe"]]
    interval = format_interval((worst["kl_low"], worst["kl_high"]), form=".3g")
    rivals = int((rows["kl_high"] >= worst["kl_low"]).sum()) - 1
    overlap = f"; the intervals of {themes.format_count(rivals, 'other layer')} overlap with it" if rivals > 0 else ""
    quiet = int((~rows["significant"].astype(bool)).sum())
    silent = f"; {themes.format_count(quiet, 'layer')} within half-precision noise" if quiet else ""
    return (
        f"{worst['name']}, which alone at {worst['bits_per_weight']:.2f} stored bits costs {worst['kl']:.3g} ({interval}) "
        f"nats per token{overlap}{silent}."
    )


def _repeat_colors(count: int) -> list[str]:
    """A colour for each of `count` recipes."""
    return [themes.CATEGORIES[number % len(themes.CATEGORIES)] for number in range(count)]
