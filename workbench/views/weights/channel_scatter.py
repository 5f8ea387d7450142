"""All input channels of a layer at once: second moment over weight rms, coloured by their share of the error."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from workbench.views import holoviews_style as style
from workbench.views.theme import Theme, format_count, format_percent

SCATTER_QUESTION = "Which channels are large in weights and inputs, and which carry the error?"
TOP_SHARE = 0.01  # of the channels, for the sentence
AXES = ("weight_rms", "second_moment")


@dataclass(frozen=True, eq=False)  # tables have no single answer to ==
class ChannelPoints:
    """All that the picture shows: the table of `tabulate_channel_errors`, and the page's colours."""

    table: pd.DataFrame
    theme: Theme


def locate_points(table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Where channels stand on logarithmic axes: those at 0 stand on the edge, at the smallest value above it."""
    places = []
    for name in AXES:
        values = table[name].to_numpy(dtype=np.float64)
        above = values[values > 0]
        places.append(np.maximum(values, above.min() if len(above) else 1.0))
    return places[0], places[1]


def describe_channels(table: pd.DataFrame) -> str:
    """How much of it the top one per cent carry, by error or by second moment."""
    count = max(1, round(TOP_SHARE * len(table)))
    by, thing = ("error_share", "output error") if "error_share" in table else ("second_moment", "second moment")
    ordered = table.sort_values(by, ascending=False, kind="stable")
    share = float(ordered[by].head(count).sum() / (table[by].sum() or 1.0))
    silent = int((table["second_moment"] <= 0).sum())
    stand = format_count(silent, "channel with inputs of 0 stands", "channels with inputs of 0 stand")
    note = f" {stand} on the lower edge." if silent else ""
    many = f"{count:,} channels" if count > 1 else "channel"
    hint = "" if "error_share" in table else "; quantize the layer to colour them by their error"
    first = int(ordered["channel"].iloc[0])
    return f"The top {many} of {len(table):,} carry {format_percent(share)} of the {thing}, channel {first} the most{hint}.{note}"


def draw_channel_points(points: ChannelPoints, axes: Sequence[Any]) -> Any:
    """One point a channel."""
    from bokeh.models import HoverTool

    hv, table, theme = style.load_holoviews(), points.table, points.theme
    x, y = locate_points(table)
    tips = [("channel", "@channel"), ("weight rms", "@weight_rms{%.3g}"), ("second moment", "@second_moment{%.3g}")]
    columns = {axes[0].name: x, axes[1].name: y, **{name: table[name].to_numpy() for name in table}}
    looks: dict[str, Any] = {"color": theme.original}
    if "error_share" in table:
        tips.append(("share of the error", "@error_share{%.3g}"))
        shares = table["error_share"].to_numpy()
        top = float(shares.max()) or 1.0
        columns["colour"] = np.clip(shares, top / 1e4, None)
        looks = {"color": "colour", "cmap": style.build_sequential_palette(), "cnorm": "log", "clim": (top / 1e4, top)}
        looks |= {"colorbar": True, "clabel": "share of the error"}
    hover = HoverTool(tooltips=tips, formatters={f"@{name}": "printf" for name in (*AXES, "error_share")})
    dots = hv.Points(columns, kdims=list(axes), vdims=[name for name in columns if name not in {axis.name for axis in axes}])
    return dots.opts(
        **looks,
        size=5,
        alpha=0.8,
        logx=True,
        logy=True,
        title="one point a channel",
        framewise=True,
        responsive=True,
        height=style.PICTURE_HEIGHT,
        toolbar="above",
        fontsize=style.FONT_SIZES,
        tools=[hover, "box_select"],
        active_tools=["box_select"],
        nonselection_alpha=0.8,
        padding=0.05,
        hooks=[style.style_figure(theme)],
    )


def draw_marked_channels(marks: tuple[tuple[int, ...], ChannelPoints], axes: Sequence[Any]) -> Any:
    """A ring around every marked channel."""
    hv, (numbers, points) = style.load_holoviews(), marks
    x, y = (values[list(numbers)] for values in locate_points(points.table))
    rings = hv.Points((x, y), kdims=list(axes))
    return rings.opts(fill_color=None, line_color=points.theme.accent, line_width=2, size=11, apply_ranges=False)
