"""Salient channels: the share of each channel in a measure, and the rank of chosen channels by all measures."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis.weights.channel_saliency import MEASURES
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme

TOP = 0.01  # the share of the channels that the sentence is about
STRIP = 0.22  # part of the figure's height that the masks below the curve take
LISTED = 6  # channels that a sentence names


def draw_saliency_curve(
    ranked: pd.DataFrame,
    name: str,
    chosen: Sequence[int] = (),
    groups: tuple[list[str], np.ndarray] | None = None,
    *,
    theme: Theme = themes.LIGHT,
) -> Figure:
    """Channels by share (`channel_saliency.ranked`), with the cumulative share, chosen ones marked, and the masks of a split.

    `groups` are from `weights.channel_saliency.group_shares`; the first trace holds one point a channel, in the table's order.
    """
    ranks, floor = ranked["rank"].to_numpy(), STRIP + 0.06 if groups else 0.0
    marked = ranked[ranked["channel"].isin(list(chosen))]
    data = [
        _build_channel_points(ranked, "one channel", theme.original, 6),
        _build_channel_points(marked, "chosen", theme.accent, 11),
        _build_cumulative_line(ranked, theme),
        *(_build_group_strips(groups, ranked, theme) if groups else []),
    ]
    layout = themes.build_layout(
        theme,
        x="channels, most salient first",
        y="share of one channel",
        height=420 + (70 if groups else 0),
        dragmode="select",
        hovermode="closest",
        margin={"r": 64},
        xaxis={"range": [0, len(ranks) + 1], "showgrid": False, "anchor": "y3" if groups else "y"},
        yaxis={"tickformat": ".2~%", "rangemode": "tozero", "domain": [floor, 1]},
    )
    layout["yaxis2"] = layout["yaxis"] | {
        "overlaying": "y",
        "side": "right",
        "range": [0, 1.02],
        "tickformat": ".0%",
        "showgrid": False,
        "title": layout["yaxis"]["title"] | {"text": "cumulative share"},
    }
    if groups:
        layout["yaxis3"] = layout["yaxis"] | {"domain": [0, STRIP], "title": {"text": ""}, "type": "category", "tickformat": ""}
    answer = f"{_describe_top_channels(ranked, name)}{_describe_split(groups, ranked)}{_describe_chosen_channels(marked)}"
    return Figure("Which channels matter most for the output?", answer, {"data": data, "layout": layout}, ranked)


def _build_channel_points(ranked: pd.DataFrame, name: str, color: str, size: int) -> dict[str, Any]:
    """One marker a channel."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": ranked["rank"].tolist(),
        "y": ranked["share"].tolist(),
        "text": ranked["channel"].tolist(),
        "name": name,
        "marker": {"color": color, "size": size, "line": {"width": 0}},
        "selected": {"marker": {"color": color, "opacity": 1}},
        "unselected": {"marker": {"opacity": 0.6}},
        "hovertemplate": "channel %{text}<br>rank %{x}: %{y:.3%}<extra></extra>",
    }


def _build_cumulative_line(ranked: pd.DataFrame, theme: Theme) -> dict[str, Any]:
    """What all channels up to a rank carry together."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": ranked["rank"].tolist(),
        "y": ranked["cumulative_share"].tolist(),
        "yaxis": "y2",
        "name": "cumulative share",
        "line": {"color": theme.muted, "width": 2, "dash": "dash"},
        "hovertemplate": "the first %{x}: %{y:.1%}<extra></extra>",
    }


def _build_group_strips(groups: tuple[list[str], np.ndarray], ranked: pd.DataFrame, theme: Theme) -> list[dict[str, Any]]:
    """Below the curve, a line a group: how much of each channel the split has put there."""
    names, part_shares = groups
    return [
        {
            "type": "heatmap",
            "z": part_shares[:, ranked["channel"].to_numpy()],
            "x": ranked["rank"].tolist(),
            "y": [name.replace(", ", ",<br>") for name in names],
            "yaxis": "y3",
            "zmin": 0.0,
            "zmax": 1.0,
            "colorscale": [[0.0, theme.raised], [1.0, theme.quantized]],
            "showscale": False,
            "ygap": 2,
            "hovertemplate": "%{y}: %{z:.0%} of the channel's weights<extra></extra>",
        }
    ]


def _describe_top_channels(ranked: pd.DataFrame, name: str) -> str:
    """How much the first hundredth of the channels carries, and how many carry half."""
    most = max(1, round(TOP * len(ranked)))
    part = themes.format_percent(float(ranked["cumulative_share"].iloc[most - 1]))
    half = int((ranked["cumulative_share"] < 0.5).sum()) + 1
    verb = "carries" if most == 1 else "carry"
    return f"{most} of {len(ranked):,} channels {verb} {part} of the {MEASURES[name].thing}; {half:,} carry half of it."


def _describe_split(groups: tuple[list[str], np.ndarray] | None, ranked: pd.DataFrame) -> str:
    """Where the split put the first hundredth."""
    if groups is None:
        return ""
    names, part_shares = groups
    first = ranked["channel"].to_numpy()[: max(1, round(TOP * len(ranked)))]
    mean_shares = part_shares[:, first].mean(1)
    position = int(mean_shares.argmax())
    return f" The split has {themes.format_percent(float(mean_shares[position]))} of their weights in “{names[position]}”."


def _describe_chosen_channels(marked: pd.DataFrame) -> str:
    """What the chosen channels carry."""
    if marked.empty:
        return ""
    together = themes.format_percent(float(marked["share"].sum()))
    verb = "carries" if len(marked) == 1 else "carry"
    return f" The {themes.format_count(len(marked), 'chosen channel')} {_format_channels(marked['channel'])} {verb} {together}."


def _format_channels(channels: Sequence[int] | pd.Series) -> str:
    """Channel numbers in brackets, the first few of many."""
    numbers = [f"{int(channel)}" for channel in channels]
    return f"({', '.join(numbers[:LISTED])}{', …' if len(numbers) > LISTED else ''})"


def draw_channel_measures(table: pd.DataFrame, cols: int, *, theme: Theme = themes.LIGHT) -> Figure:
    """How chosen channels stand by every measure (`tabulate_channel_ranks`), over the average channel."""
    names = list(dict.fromkeys(table["measure"]))
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": names,
            "y": channel_rows["times"].tolist(),
            "text": channel_rows["rank"].tolist(),
            "name": f"channel {channel}",
            "marker": {"size": 9, "color": choose_channel_colour(position)},
            "line": {"color": choose_channel_colour(position), "width": 1.5},
            "hovertemplate": "%{x}: %{y:.3g} × the average, rank %{text}<extra>" + f"channel {channel}</extra>",
        }
        for position, (channel, channel_rows) in enumerate(table.groupby("channel", sort=False))
    ]
    layout = themes.build_layout(
        theme,
        y="× the average channel",
        height=380,
        xaxis={"type": "category", "tickangle": -20, "showgrid": False},
        yaxis=themes.LOGARITHMIC,
        shapes=[build_average_line(theme)],
    )
    best = table.loc[table["rank"].idxmin()]
    worst = table[table["channel"] == best["channel"]]
    worst = worst.loc[worst["rank"].idxmax()]
    answer = (
        f"Channel {best['channel']} is number {best['rank']:,} of {cols:,} by {best['measure']} "
        f"({best['times']:.3g} × the average) and number {worst['rank']:,} by {worst['measure']}."
    )
    return Figure("Do all measures agree on these channels?", answer, {"data": data, "layout": layout}, table)


def build_average_line(theme: Theme, yref: str = "y") -> dict[str, Any]:
    """A dashed line at the average channel."""
    line = {"color": theme.muted, "dash": "dash", "width": 1}
    return {"type": "line", "xref": "paper", "yref": yref, "x0": 0, "x1": 1, "y0": 1, "y1": 1, "line": line}


def choose_channel_colour(position: int) -> str:
    """One colour a channel, the same in every figure."""
    return themes.CATEGORIES[position % len(themes.CATEGORIES)]
