"""Binary codebooks: how evenly sign patterns are distributed, and how many signs are flipped compared with the lower bound."""

from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis.method.sign_patterns import SignPatterns, compute_flip_bound
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme


def draw_sign_patterns(original: SignPatterns, transformed: SignPatterns | None = None, *, theme: Theme = themes.LIGHT) -> Figure:
    """Draw the shares of the most frequent sign patterns by rank, before and after a transform, against patterns all as likely.

    Args:
        original: What `wb.measures.sign_patterns` gives for the original weight.
        transformed: The same behind a transform, where there is one.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import torch
        >>> import workbench as wb
        >>> weight = torch.randn(256, 80, generator=torch.Generator().manual_seed(0))
        >>> figure = wb.figures.sign_patterns(wb.measures.sign_patterns(weight, length=4))
        >>> figure.question, len(figure.table)
        ('Do sign patterns repeat?', 16)
    """
    named = [("original", original, theme.original)]
    if transformed is not None:
        named.append(("transformed", transformed, theme.quantized))
    ranks = [1, max(len(measured.table) for _, measured, _ in named)]
    even = {
        "type": "scatter",
        "mode": "lines",
        "x": ranks,
        "y": [original.even_share] * 2,
        "name": "uniform distribution",
        "line": {"color": theme.muted, "dash": "dash"},
    }
    plot = {
        "data": [*(_build_share_line(measured.table, name, color) for name, measured, color in named), even],
        "layout": _build_log_layout(theme, "rank of the pattern", "share of all vectors"),
    }
    table = original.table if transformed is None else original.table.merge(transformed.table, on="rank", suffixes=("", " after"))
    return Figure("Do sign patterns repeat?", _describe_sign_patterns(original, transformed), plot, table)


def _build_share_line(table: pd.DataFrame, name: str, color: str) -> dict[str, Any]:
    """One line of shares by rank; the pattern itself is shown where the pointer is."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(range(1, len(table) + 1)),
        "y": table["share"].tolist(),
        "text": table["pattern"].tolist(),
        "name": name,
        "line": {"color": color, "width": 2},
        "hovertemplate": "%{text}<br>%{y:.3%} of all vectors<extra>" + name + "</extra>",
    }


def _build_log_layout(theme: Theme, x: str, y: str) -> dict[str, Any]:
    """Both axes logarithmic: ranks run over decades, and so do shares."""
    return themes.build_layout(theme, x=x, y=y, xaxis=themes.LOGARITHMIC, yaxis=themes.LOGARITHMIC | {"tickformat": ".2~%"})


def _describe_sign_patterns(original: SignPatterns, transformed: SignPatterns | None) -> str:
    """Entropy a sign, before and after."""
    text = (
        f"Patterns of {themes.format_count(original.length, 'sign')} have an entropy of {original.entropy:.2f} bits: "
        f"{original.entropy_per_sign:.3f} per sign, where 1 means random signs"
    )
    if transformed is None:
        return f"{text}."
    return f"{text}; {transformed.entropy_per_sign:.3f} after the transform."


def draw_sign_flips(table: pd.DataFrame, *, moved: bool = False, theme: Theme = themes.LIGHT) -> Figure:
    """Draw the flipped signs of codebooks over their rate, with the least share there can be as a line.

    Args:
        table: The table of `wb.measures.flipped_signs`.
        moved: Whether errors were moved on to weights before they were coded, which flips signs too.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import pandas as pd
        >>> import workbench as wb
        >>> bound = wb.measures.flip_bound(0.8)
        >>> table = pd.DataFrame({"length": [10], "entries": [256], "rate": [0.8], "flip_rate": [0.17], "flip_bound": [bound]})
        >>> wb.figures.flipped_signs(table).answer
        '17 % of the signs are flipped at 0.80 bits per sign; 3.11 % is the lower bound for random signs.'
    """
    measured = table.dropna(subset=["flip_rate"])
    rates = np.linspace(0.2, 1.0, 81)
    bound = {
        "type": "scatter",
        "mode": "lines",
        "x": rates.tolist(),
        "y": [compute_flip_bound(rate) for rate in rates],
        "name": "lower bound for random signs",
        "line": {"color": theme.muted, "dash": "dash"},
    }
    points = {
        "type": "scatter",
        "mode": "markers",
        "x": measured["rate"].tolist(),
        "y": measured["flip_rate"].tolist(),
        "name": "codebooks",
        "marker": {"color": theme.quantized, "size": 11, "line": {"color": theme.contrast, "width": 1}},
        "customdata": measured[["length", "entries"]].to_numpy().tolist(),
        "hovertemplate": "%{customdata[1]} codewords of %{customdata[0]} signs<br>%{y:.2%} flipped<extra></extra>",
    }
    plot = {
        "data": [bound, points],
        "layout": themes.build_layout(
            theme, x="index bits per sign", y="signs flipped", yaxis={"tickformat": ".0%", "rangemode": "tozero"}
        ),
    }
    return Figure("How many signs does the codebook flip?", _describe_sign_flips(measured, moved), plot, table)


def _describe_sign_flips(measured: pd.DataFrame, moved: bool) -> str:
    """The codebook with the fewest flips, against its bound."""
    if measured.empty:
        return "No codebook has been compared with its weights yet."
    best = measured.iloc[int(measured["flip_rate"].argmin())]
    least = f"{themes.format_percent(best['flip_bound'])} is the lower bound for random signs"
    also = " Some of them flipped before coding, when error feedback changed the weights." if moved else ""
    return (
        f"{themes.format_percent(best['flip_rate'])} of the signs are flipped at {best['rate']:.2f} bits per sign; {least}.{also}"
    )
