"""The stops of the squeeze slider: the four numbers of one, and perplexity against stored bits for all."""

import html
from dataclasses import dataclass

import pandas as pd

from workbench.analysis.decisions.squeeze import Squeezed
from workbench.intervals import written
from workbench.quantized import percent
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.predictions import rate_distortion
from workbench.views.theme import Theme


@dataclass(frozen=True)
class Number:
    """One figure of a stop: what it is, its value, and what stands smaller beneath."""

    label: str
    value: str
    beneath: str


def numbers(squeezed: Squeezed) -> list[Number]:
    """Stored bits, size, perplexity and speed."""
    limits = (
        None
        if squeezed.perplexity_low is None or squeezed.perplexity_high is None
        else (squeezed.perplexity_low, squeezed.perplexity_high)
    )
    interval = written(limits, squeezed.text_tokens, ".2f")
    if squeezed.ratio != 1:
        interval = f"{interval}; {squeezed.times.against('the original')}"
    share = "" if squeezed.coverage is None else f", in {percent(squeezed.coverage)} of the weights"
    return [
        Number(
            "stored bits a weight", themes.bits(squeezed.bits_per_weight), f"{themes.bits(squeezed.nominal_bits)} nominal{share}"
        ),
        Number(
            "size on disk", themes.megabytes(8 * squeezed.bytes), f"{themes.megabytes(8 * squeezed.resident_bytes)} in memory"
        ),
        Number("perplexity", f"{squeezed.perplexity:.2f}", interval),
        Number(
            "speed on this machine",
            themes.speed(squeezed.fastest),
            f"best of three rounds, median {squeezed.tokens_per_second:.0f}",
        ),
    ]


def numbers_html(figures: list[Number], theme: Theme) -> str:
    """The numbers beside each other."""
    cells = "".join(
        f"<div style='min-width:130px'><dt style='color:{theme.muted};font-size:0.8rem'>{html.escape(number.label)}</dt>"
        f"<dd style='margin:0;font-size:1.35rem;font-weight:600'>{html.escape(number.value)}</dd>"
        f"<dd style='margin:0;color:{theme.muted};font-size:0.8rem'>{html.escape(number.beneath)}</dd></div>"
        for number in figures
    )
    return f"<dl aria-live='polite' style='display:flex;flex-wrap:wrap;gap:6px 22px;margin:0'>{cells}</dl>"


def curve(table: pd.DataFrame, current: str | None, *, theme: Theme = themes.LIGHT) -> Figure:
    """Perplexity with its interval against stored bits, one mark a stop; `current` is the recipe of the one to mark."""
    table = table.sort_values("bits_per_weight", ascending=False, ignore_index=True)
    plot = rate_distortion.plot(table, "recipe", "perplexity", current, theme, mode="lines+markers")
    return Figure("How far can it be squeezed?", sentence(table), plot, table)


def sentence(table: pd.DataFrame) -> str:
    """The smallest stop that the text cannot tell from the original, and where the smallest ends."""
    first, last = table.iloc[0], table.iloc[-1]
    if len(table) == 1:
        return f"One stop is built: {themes.bits(first['bits_per_weight'])} stored bits, perplexity {first['perplexity']:.2f}."
    bits = {name: themes.bits(row["bits_per_weight"]) for name, row in (("first", first), ("last", last))}
    ends = f"at {bits['last']} it is {last['perplexity']:.2f}, {themes.against(last, 'the original')}."
    same = table[(table["ratio_low"] <= 1) & (table["ratio_high"] >= 1)]
    if same.empty:
        return f"At {bits['first']} stored bits the perplexity is {first['perplexity']:.2f}; {ends}"
    good = same.iloc[-1]
    still = f"Down to {themes.bits(good['bits_per_weight'])} stored bits the text shows no difference from the original"
    return f"{still} ({good['perplexity']:.2f} against {first['perplexity']:.2f} at {bits['first']}); {ends}"
