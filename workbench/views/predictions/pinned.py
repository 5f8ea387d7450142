"""Pinned results compared: error against bits, distribution of weight errors, perplexity against bits."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from torch import Tensor

from workbench.views import theme as themes
from workbench.views.figure import Figure, escape_labels
from workbench.views.predictions import layer_errors, rate_distortion
from workbench.views.theme import Theme

QUANTILES = np.linspace(0, 1, 21)
SAMPLE = 1 << 16  # weights that quantiles are read from, evenly spaced


def draw_error_by_bits(table: pd.DataFrame, current: str | None, *, theme: Theme = themes.LIGHT) -> Figure:
    """Error against stored bits of all pinned layers; `table` is `Pins.layer_table`."""
    layers = table["name"].nunique()
    scope = "pinned, all for one layer" if layers == 1 else f"pinned, for {layers} layers"
    return layer_errors.draw_error_by_bits(table.rename(columns={"pin": "recipe"}), current, scope=scope, theme=theme)


def draw_weight_errors(original: Tensor, quantized: Mapping[str, Tensor], *, theme: Theme = themes.LIGHT) -> Figure:
    """How large the errors of single weights are, by pin: so many of a layer's weights have at most this error.

    Errors are over the weights' standard deviation; 65,536 evenly spaced weights are read.
    """
    spread = float(original.std()) or 1.0
    every = max(original.numel() // SAMPLE, 1)
    sizes = {label: _compute_error_quantiles(original, weight, every) / spread for label, weight in quantized.items()}
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": values.tolist(),
            "y": QUANTILES.tolist(),
            "name": label,
            "line": {"color": themes.CATEGORIES[number % len(themes.CATEGORIES)], "width": 2},
            "hovertemplate": f"{escape_labels(label)}<br>%{{y:.0%}} of the weights have an error up to %{{x:.3g}}<extra></extra>",
        }
        for number, (label, values) in enumerate(sizes.items())
    ]
    layout = themes.build_layout(
        theme,
        x="error of a weight, in standard deviations of the weights",
        y="share of the weights",
        height=300,
        showlegend=True,
        xaxis={"rangemode": "tozero"},
        yaxis={"tickformat": ".0%"},
    )
    middle = {label: float(np.interp(0.5, QUANTILES, values)) for label, values in sizes.items()}
    least = min(middle, key=lambda label: middle[label])
    answer = f"The median weight error is {themes.format_error(middle[least])} standard deviations with {least}"
    if len(middle) > 1:
        most = max(middle, key=lambda label: middle[label])
        answer += f" and {themes.format_error(middle[most])} with {most}"
    table = pd.DataFrame({"quantile": QUANTILES, **sizes})
    return Figure("How large are the errors of single weights?", f"{answer}.", {"data": traces, "layout": layout}, table)


def _compute_error_quantiles(original: Tensor, quantized: Tensor, every: int) -> np.ndarray:
    """Quantiles of |quantized − original| over every so many weights."""
    return np.quantile((quantized - original).abs().reshape(-1)[::every].numpy(), QUANTILES)


def draw_pinned_models(table: pd.DataFrame, current: str | None, *, theme: Theme = themes.LIGHT) -> Figure:
    """Perplexity against stored bits of all pinned models; `table` is `Pins.model_table`."""
    best = table.loc[table["perplexity"].idxmin()]
    one = f"One model is pinned, {best['pin']}: perplexity"
    many = f"{len(table)} models are pinned; {best['pin']} has the lowest perplexity:"
    spread = themes.format_with_interval(best, "perplexity", ".2f")
    answer = f"{one if len(table) == 1 else many} {spread} at {themes.format_bits(best['bits_per_weight'])} stored bits"
    if best["pin"] != table["pin"].iloc[0]:
        answer += f", {themes.format_paired_ratio(best, table['pin'].iloc[0])}"
    answer += "."
    plot = rate_distortion.plot(table, "pin", "perplexity", current, theme)
    return Figure("Which model predicts text best for its size?", answer, plot, table)
