"""Models compared: stored bits, distance from the original, and perplexity."""

import pandas as pd

from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.predictions import rate_distortion
from workbench.views.theme import Theme

CLOSEST, READS = "Which model is closest to the original for its bits?", "Which model predicts text best for its size?"


def draw_kl_by_bits(table: pd.DataFrame, current: str | None = None, *, theme: Theme = themes.LIGHT) -> Figure:
    """KL with its 95 % interval against stored bits, one mark a model but the original; `current` is the one to mark.

    `table` is that of `analysis.models.compare_models`, with at least one model beside the original.
    """
    return Figure(
        CLOSEST, _describe_closest_model(table), rate_distortion.plot(table.iloc[1:], "model", "kl", current, theme), table
    )


def draw_perplexity_by_bits(table: pd.DataFrame, current: str | None = None, *, theme: Theme = themes.LIGHT) -> Figure:
    """Perplexity with its 95 % interval against stored bits, the original among them; `table` as above."""
    first, others = table.iloc[0], table.iloc[1:]
    best = others.loc[others["perplexity"].idxmin()]
    answer = (
        f"The original has perplexity {_format_perplexity(first)}; of {themes.format_count(len(others), 'quantized model')}, "
        f"{best['model']} has the lowest perplexity: {_format_perplexity(best)} at "
        f"{themes.format_bits(best['bits_per_weight'])} stored bits, "
        f"{themes.format_paired_ratio(best, 'the original')}."
    )
    return Figure(READS, answer, rate_distortion.plot(table, "model", "perplexity", current, theme), table)


def _format_perplexity(row: pd.Series) -> str:
    """A model's perplexity with its interval."""
    return themes.format_with_interval(row, "perplexity", ".2f")


def _describe_closest_model(table: pd.DataFrame) -> str:
    """The closest model with its interval, and the smallest."""
    others = table.iloc[1:]
    best, least = others.loc[others["kl"].idxmin()], others.loc[others["bits_per_weight"].idxmin()]
    near = f"KL {themes.format_with_interval(best, 'kl')}"
    answer = (
        f"{best['model']} is the closest to the original: {near}, with {themes.format_bits(best['bits_per_weight'])} stored bits"
    )
    if best["model"] == least["model"]:
        return f"{answer}; none of {themes.format_count(len(others), 'model')} stores less."
    smallest = f"{themes.format_bits(least['bits_per_weight'])} bits, at KL {themes.format_error(least['kl'])}"
    return f"{answer}; {least['model']} stores the least, {smallest}."
