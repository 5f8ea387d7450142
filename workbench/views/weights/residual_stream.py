"""Chosen channels through the model: in the residual stream, and inside a block."""

from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis.weights.residual_stream import KINDS, Stream
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.layer_grid import build_level_ticks
from workbench.views.layer_names import shorten_matrix_name
from workbench.views.theme import Theme
from workbench.views.weights.channel_saliency import build_average_line, choose_channel_colour

TITLES = {"written": "written", "gain": "norm gain", "input_size": "input", "read": "read"}
GAP = 0.04
STREAM_QUESTION = "Which layers use this channel?"


def draw_residual_stream(residual: Stream, table: pd.DataFrame, *, theme: Theme = themes.LIGHT) -> Figure:
    """Chosen channels at every stop of the stream (`weights.residual_stream.follow`): four panels, a line a channel."""
    kinds = [kind for kind in KINDS if table[kind].notna().any()]
    names, height = [step.label for step in residual.steps], (1 + GAP) / len(kinds)
    layout = themes.build_layout(theme, height=170 * len(kinds) + 110, hovermode="closest")
    axis, layout["shapes"] = layout["yaxis"], []
    data: list[dict[str, Any]] = []
    for position, kind in enumerate(kinds):
        top, key = 1 - position * height, "y" if position == 0 else f"y{position + 1}"
        layout[key.replace("y", "yaxis", 1)] = axis | {
            "domain": [max(top - height + GAP, 0), top],
            "title": axis["title"] | {"text": TITLES[kind]},
            "nticks": 4,
            "rangemode": "tozero",
        }
        layout["shapes"].append(build_average_line(theme, key))
        data += [
            _build_channel_line(channel_rows, kind, key, f"channel {channel}", choose_channel_colour(number), first=position == 0)
            for number, (channel, channel_rows) in enumerate(table.groupby("channel", sort=False))
        ]
    bottom = "y" if len(kinds) == 1 else f"y{len(kinds)}"
    layout["xaxis"] |= {"type": "category", "categoryarray": names, "anchor": bottom, **_build_stop_ticks(names)}
    layout["xaxis"]["title"] |= {"text": "block, attention before MLP"}
    return Figure(STREAM_QUESTION, _describe_residual_stream(table, kinds), {"data": data, "layout": layout}, table)


def _build_stop_ticks(names: list[str]) -> dict[str, Any]:
    """Each block's number at its first half; its stops have their whole names on hover."""
    blocks = [name.partition(" · ")[0] for name in names]
    first = [position for position, block in enumerate(blocks) if block not in blocks[:position]]
    return build_level_ticks([names[position] for position in first], [blocks[position] for position in first])


def _build_channel_line(
    channel_rows: pd.DataFrame, kind: str, axis: str, name: str, color: str, *, first: bool
) -> dict[str, Any]:
    """One channel in one panel."""
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": channel_rows["stop"].tolist(),
        "y": [None if np.isnan(value) else value for value in channel_rows[kind]],
        "yaxis": axis,
        "name": name,
        "legendgroup": name,
        "showlegend": first,
        "line": {"color": color, "width": 2},
        "marker": {"color": color, "size": 6},
        "hovertemplate": f"%{{x}}, {TITLES[kind]}: %{{y:.3g}} × the average<extra>{name}</extra>",
    }


def _describe_residual_stream(table: pd.DataFrame, kinds: list[str]) -> str:
    """The strongest writer and reader of the channel that stands out most."""
    long = table.melt(["stop", "channel"], kinds, "kind", "times").dropna()
    top = long.loc[long["times"].idxmax()]
    channel_rows = long[long["channel"] == top["channel"]]

    def most(kind: str) -> str:
        matching = channel_rows[channel_rows["kind"] == kind]
        best = matching.loc[matching["times"].idxmax()]
        return f"{best['stop']} ({best['times']:.2f} ×)"

    hint = "" if "input_size" in kinds else " Press Run calibration to see its inputs."
    return (
        f"Channel {top['channel']} is written most by {most('written')} and read most by {most('read')}; "
        f"1 × is the average channel.{hint}"
    )


def draw_inner_channels(table: pd.DataFrame, *, theme: Theme = themes.LIGHT) -> Figure:
    """Channels inside a block (`tabulate_inner_channels`): the rows that make them and the column that reads them."""
    data = [
        {
            "type": "bar",
            "x": [
                f"{shorten_matrix_name(name)} {part}"
                for name, part in zip(channel_rows["name"], channel_rows["part"], strict=True)
            ],
            "y": channel_rows["times"].tolist(),
            "name": f"channel {channel}",
            "marker": {"color": choose_channel_colour(position)},
            "hovertemplate": "%{x}: %{y:.3g} × the average<extra>" + f"channel {channel}</extra>",
        }
        for position, (channel, channel_rows) in enumerate(table.groupby("channel", sort=False))
    ]
    layout = themes.build_layout(
        theme, y="× the average", height=320, shapes=[build_average_line(theme)], xaxis={"type": "category"}
    )
    first = table[table["channel"] == table["channel"].iloc[0]]
    row_part = first[first["part"] == "row"]
    who = " and ".join(
        f"row {index} of {shorten_matrix_name(name)}" for name, index in zip(row_part["name"], row_part["index"], strict=True)
    )
    verb = "writes" if len(row_part) == 1 else "write"
    answer = (
        f"Channel {first['channel'].iloc[0]} exists only inside this block: {who} {verb} it, this layer's column reads it. "
        f"The rows of this layer write channels of the residual stream."
    )
    return Figure(STREAM_QUESTION, answer, {"data": data, "layout": layout}, table)
