"""The stops of the squeeze slider: perplexity against stored bits."""

import pandas as pd

from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.predictions import rate_distortion
from workbench.views.theme import Theme


def draw_squeeze_curve(table: pd.DataFrame, current: str | None, *, theme: Theme = themes.LIGHT) -> Figure:
    """Perplexity with its interval against stored bits, one mark a stop; `current` is the recipe of the one to mark."""
    table = table.sort_values("bits_per_weight", ascending=False, ignore_index=True)
    plot = rate_distortion.plot(table, "recipe", "perplexity", current, theme, mode="lines+markers")
    return Figure("How far can the model be squeezed?", _describe_squeeze_curve(table), plot, table)


def _describe_squeeze_curve(table: pd.DataFrame) -> str:
    """The smallest stop that the text cannot tell from the original, and where the smallest ends."""
    first, last = table.iloc[0], table.iloc[-1]
    if len(table) == 1:
        return (
            f"One stop is built: {themes.format_bits(first['bits_per_weight'])} stored bits, perplexity "
            f"{first['perplexity']:.2f}."
        )
    bits = {name: themes.format_bits(row["bits_per_weight"]) for name, row in (("first", first), ("last", last))}
    ends = f"at {bits['last']} it is {last['perplexity']:.2f}, {themes.format_paired_ratio(last, 'the original')}."
    same = table[(table["ratio_low"] <= 1) & (table["ratio_high"] >= 1)]
    if same.empty:
        return f"At {bits['first']} stored bits the perplexity is {first['perplexity']:.2f}; {ends}"
    good = same.iloc[-1]
    fewest = themes.format_bits(good["bits_per_weight"])
    still = f"Down to {fewest} stored bits, no difference from the original is measurable on this text"
    return f"{still} ({good['perplexity']:.2f} against {first['perplexity']:.2f} at {bits['first']}); {ends}"
