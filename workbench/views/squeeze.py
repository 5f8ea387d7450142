"""The stops of the squeeze slider: the four numbers of one, and perplexity against stored bits for all."""

import html
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workbench.analysis.squeeze import Squeezed
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme


@dataclass(frozen=True)
class Number:
    """One figure of a stop: what it is, its value, and what stands smaller beneath."""

    label: str
    value: str
    beneath: str


def numbers(known: Squeezed) -> list[Number]:
    """Stored bits, size, perplexity and speed."""
    interval = f"{known.perplexity_low:.2f} to {known.perplexity_high:.2f}, 95 %"
    return [
        Number("stored bits a weight", themes.bits(known.bits_per_weight), f"{themes.bits(known.nominal_bits)} nominal"),
        Number("size on disk", themes.megabytes(8 * known.bytes), f"{themes.megabytes(8 * known.resident_bytes)} in memory"),
        Number("perplexity", f"{known.perplexity:.2f}", interval),
        Number(
            "speed on this machine",
            themes.speed(known.fastest),
            f"best of three rounds, median {known.tokens_per_second:.0f}",
        ),
    ]


def numbers_html(found: list[Number], theme: Theme) -> str:
    """The numbers beside each other."""
    cells = "".join(
        f"<div style='min-width:130px'><dt style='color:{theme.muted};font-size:0.8rem'>{html.escape(number.label)}</dt>"
        f"<dd style='margin:0;font-size:1.35rem;font-weight:600'>{html.escape(number.value)}</dd>"
        f"<dd style='margin:0;color:{theme.muted};font-size:0.8rem'>{html.escape(number.beneath)}</dd></div>"
        for number in found
    )
    return f"<dl aria-live='polite' style='display:flex;flex-wrap:wrap;gap:6px 22px;margin:0'>{cells}</dl>"


def curve(table: pd.DataFrame, current: str | None, *, theme: Theme = themes.LIGHT) -> Figure:
    """Perplexity with its interval against stored bits, one mark a stop; `current` is the recipe of the one to mark."""
    table = table.sort_values("bits_per_weight", ascending=False, ignore_index=True)
    return Figure("How far can it be squeezed?", sentence(table), perplexity_plot(table, "recipe", current, theme), table)


def perplexity_plot(
    table: pd.DataFrame, named: str, current: str | None, theme: Theme, mode: str = "lines+markers"
) -> dict[str, Any]:
    """Perplexity with its interval against stored bits; `named` is the column with each row's name, `current` the one to mark."""
    edge = [theme.accent if name == current else theme.surface for name in table[named]]
    trace = {
        "type": "scatter",
        "mode": mode,
        "x": table["bits_per_weight"].tolist(),
        "y": table["perplexity"].tolist(),
        "text": table[named].tolist(),
        "textposition": "top center",
        "cliponaxis": False,
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": (table["perplexity_high"] - table["perplexity"]).tolist(),
            "arrayminus": (table["perplexity"] - table["perplexity_low"]).tolist(),
            "color": theme.muted,
            "thickness": 1,
        },
        "line": {"color": theme.quantized, "width": 2},
        "marker": {"color": theme.quantized, "size": 11, "line": {"color": edge, "width": 3}},
        "hovertemplate": "%{text}<br>%{x:.2f} stored bits, perplexity %{y:.2f}<extra></extra>",
    }
    ticks = [0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8, 16]
    axes = {
        "xaxis": {"type": "log", "autorange": "reversed", "tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]},
        "yaxis": {"type": "log"},
    }
    layout = themes.layout(theme, x="stored bits a weight (log scale)", y="perplexity (log scale)", height=300, **axes)
    return {"data": [trace], "layout": layout}


def sentence(table: pd.DataFrame) -> str:
    """The smallest stop whose interval reaches down to the largest one's perplexity, and where the smallest ends."""
    first, last = table.iloc[0], table.iloc[-1]
    if len(table) == 1:
        return f"One stop is built: {themes.bits(first['bits_per_weight'])} stored bits, perplexity {first['perplexity']:.2f}."
    good = table[table["perplexity_low"] <= first["perplexity"]].iloc[-1]
    bits = [themes.bits(row["bits_per_weight"]) for row in (first, good, last)]
    still = f"Down to {bits[1]} stored bits the interval of the perplexity ({good['perplexity']:.2f}) still holds the"
    return f"{still} {first['perplexity']:.2f} at {bits[0]}; at {bits[2]} it is {last['perplexity']:.2f}."
