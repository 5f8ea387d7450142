"""The weights of one layer: their histogram with the quantizer's levels."""

from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis.weights.distribution import compute_cell_edges
from workbench.analysis.weights.weight_sketch import Histogram, Levels
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme

WRITTEN = 8  # levels up to which each is written and has the edges of its cell


def draw_histogram(
    original: Histogram,
    quantized: Histogram | None = None,
    levels: Levels | None = None,
    rows: tuple[int, int] | None = None,
    *,
    scope: str = "this layer",
    log: bool = False,
    theme: Theme = themes.LIGHT,
) -> Figure:
    """Draw how often each value occurs among weights, before and after, with the quantizer's levels as orange lines.

    Dotted lines are the edges of its cells: weights between two of them round to the level inside.

    Args:
        original: A histogram of the original weights: `wb.measures.weight_sketch(weight).histogram`.
        quantized: One of the quantized weights, with the same bins.
        levels: What `wb.measures.layer_levels` gives.
        rows: (rows, all rows) where `quantized` and `levels` are of so many rows only, scaled up.
        scope: What the weights are of, for the sentence.
        log: Whether counts are drawn on a logarithmic axis.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.mlp.down_proj"
        >>> figure = wb.figures.weight_histogram(wb.measures.weight_sketch(model.weight(layer)).histogram)
        >>> figure.question, len(figure.table)
        ('Which values do the weights take?', 161)
    """
    traces = [_build_histogram_bars(original, "original", theme.original, 0.75)]
    if quantized is not None:
        traces.append(_build_histogram_bars(quantized, "quantized", theme.quantized, 0.85) | {"yaxis": "y2"})
    plot = {
        "data": traces,
        "layout": themes.build_layout(
            theme,
            x="weight",
            y="weights in the bin" + (" (log scale)" if log else ""),
            bargap=0,
            barmode="overlay",
            hovermode="x",
            xaxis={"range": [original.low, original.high]},
            yaxis={"type": "log" if log else "linear", "rangemode": "tozero"},
            yaxis2=_build_second_axis(log, theme),
            shapes=[*_build_level_shapes(levels, theme), *_build_cell_shapes(levels, theme)] if levels is not None else [],
            annotations=_build_level_notes(levels, theme) if levels is not None else [],
        ),
    }
    edges = original.low + original.width * np.arange(len(original.counts) + 1)
    table = pd.DataFrame({"from": edges[:-1], "to": edges[1:], "original": original.counts})
    if quantized is not None:
        table["quantized"] = quantized.counts
    answer = describe_histogram(original, quantized, levels, scope)
    if quantized is not None and rows is not None:
        answer += f" Orange is a preview of {rows[0]:,} of {rows[1]:,} evenly spaced rows, scaled up."
    return Figure("Which values do the weights take?", answer, plot, table)


def _build_second_axis(log: bool, theme: Theme) -> dict[str, Any]:
    """Counts of quantized values, on the right: a few values that hold all weights would flatten the original's bell."""
    look = {"color": theme.quantized, "size": 12}
    return {
        "type": "log" if log else "linear",
        "overlaying": "y",
        "side": "right",
        "rangemode": "tozero",
        "showgrid": False,
        "automargin": True,
        "tickfont": look,
        "title": {"text": "quantized weights", "font": look},
    }


def _build_histogram_bars(histogram: Histogram, name: str, color: str, opacity: float) -> dict[str, Any]:
    """One histogram; bins are as wide as they were counted."""
    return {
        "type": "bar",
        "x": histogram.centres.tolist(),
        "y": histogram.counts.tolist(),
        "width": histogram.width,
        "name": name,
        "marker": {"color": color, "opacity": opacity, "line": {"width": 0}},
        "hovertemplate": f"{name}: %{{y:,}} weights near %{{x:.3g}}<extra></extra>",
    }


def _build_level_shapes(levels: Levels, theme: Theme) -> list[dict[str, Any]]:
    """A line at every level, on a faint band where the groups of a layer disagree."""
    shapes: list[dict[str, Any]] = []
    for low, high in zip(levels.low, levels.high, strict=True):
        if high > low:
            band = {"x0": low, "x1": high, "y0": 0, "y1": 1, "yref": "paper", "line": {"width": 0}}
            shapes.append({"type": "rect", "fillcolor": theme.quantized, "opacity": 0.13, "layer": "below"} | band)
    for value in levels.values:
        line = {"color": theme.quantized, "width": 2, "dash": "solid" if levels.groups == 1 else "dash"}
        shapes.append({"type": "line", "x0": value, "x1": value, "y0": 0, "y1": 1, "yref": "paper", "line": line})
    return shapes


def _build_cell_shapes(levels: Levels, theme: Theme) -> list[dict[str, Any]]:
    """A dotted line at every edge between two cells, where there are few enough to see."""
    if len(levels.values) > WRITTEN:
        return []
    line = {"color": theme.muted, "width": 1.5, "dash": "dot"}
    return [
        {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line}
        for x in compute_cell_edges(levels).tolist()
    ]


def _build_level_notes(levels: Levels, theme: Theme) -> list[dict[str, Any]]:
    """The levels' values above their lines, where there are few enough to read."""
    if len(levels.values) > WRITTEN:
        return []
    note = {"yref": "paper", "yanchor": "top", "xanchor": "left", "showarrow": False, "font": {"size": 12, "color": theme.action}}
    # every other one a line lower, so that close levels do not write over each other
    return [note | {"x": value, "y": 1 - 0.07 * (i % 2), "text": f" {value:.3g}"} for i, value in enumerate(levels.values)]


def describe_histogram(original: Histogram, quantized: Histogram | None, levels: Levels | None, scope: str) -> str:
    """How many weights, and how many levels they share."""
    text = f"{original.total:,} weights of {scope}"
    if original.outside:
        text += f" ({original.outside:,} lie beyond the axis)"
    if quantized is None:
        return f"{text}; quantize the layer to see the levels they are rounded to."
    if levels is None:
        return f"{text}, before and after; the quantized weights take too many different values to draw as lines."
    if levels.groups == 1:
        edges = "; dotted lines are the edges of their cells" if len(levels.values) <= WRITTEN else ""
        return f"{text} share {themes.format_count(len(levels.values), 'level')}{edges}."
    bands = f"the line is the median over {themes.format_count(levels.groups, 'group')}, the band holds 80 % of them"
    return f"{text}: each group has its own {len(levels.values)} levels; {bands}."
