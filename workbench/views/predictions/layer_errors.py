"""Errors of quantization: the error of every layer, and the results for one layer as error against stored bits."""

from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis import glossary
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.layer_grid import draw_layer_grid
from workbench.views.layer_names import label_layer
from workbench.views.theme import Theme


def draw_layer_errors(layers: pd.DataFrame, selected: str | None, *, theme: Theme = themes.LIGHT) -> Figure:
    """A cell for each quantized layer, coloured by its output error, or its weight error where there is none; `layers` holds only
    quantized ones."""
    measured = bool(layers["output_error"].notna().any())
    column = "output_error" if measured else "relative_error"
    notes = [f"<br>weight error {themes.format_error(value)}" if measured else "" for value in layers["relative_error"]]
    plot = draw_layer_grid(layers, column, selected, notes=notes, theme=theme)
    shown_columns = ["name", "block", "matrix", "bits_per_weight", "nominal_bits", "relative_error", "output_error"]
    return Figure("Which layers have the largest error?", _describe_layer_errors(layers, column), plot, layers[shown_columns])


def _describe_layer_errors(layers: pd.DataFrame, column: str) -> str:
    """The worst layer, the best, and how many there are."""
    values = layers[column].astype(float)
    worst, best = layers.loc[values.idxmax()], layers.loc[values.idxmin()]
    what = glossary.label_column(column)
    if len(layers) == 1:
        return (
            f"{label_layer(worst)} has {what} {themes.format_error(values.max())}: "
            f"{themes.format_percent(values.max())} of the energy is lost."
        )
    return (
        f"Of {len(layers)} quantized layers, {label_layer(worst)} has the largest {what}, {themes.format_error(values.max())}, "
        f"and {label_layer(best)} the smallest, {themes.format_error(values.min())}."
    )


def draw_error_by_bits(
    results: pd.DataFrame, current: str | None, *, scope: str = "for this layer", theme: Theme = themes.LIGHT
) -> Figure:
    """Draw every result as a point: stored bits across, error upwards, the nominal figure as a hollow mark.

    Args:
        results: One row a result: recipe, bits_per_weight, nominal_bits, relative_error, output_error (NaN where it was not
            calibrated).
        current: A recipe to mark, or None.
        scope: What the results are for, for the sentence.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import pandas as pd
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.mlp.down_proj"
        >>> results = [wb.quantize(model, layer, wb.recipe("rtn", bits=bits)) for bits in (2, 3)]
        >>> columns = ["bits_per_weight", "nominal_bits", "relative_error", "output_error"]
        >>> rows = [{"recipe": r.recipe.code(), **{name: getattr(r, name) for name in columns}} for r in results]
        >>> wb.figures.bits_against_error(pd.DataFrame(rows), None).question
        'How much error for how many bits?'
    """
    column = "output_error" if results["output_error"].notna().all() else "relative_error"
    errors = results[column].astype(float)
    lines: list[dict[str, Any]] = []
    for nominal, stored, value in zip(results["nominal_bits"], results["bits_per_weight"], errors, strict=True):
        link = {"color": theme.muted, "width": 1, "dash": "dot"}
        lines.append({"type": "line", "x0": nominal, "x1": stored, "y0": value, "y1": value, "line": link})
    positive = bool((errors > 0).all())
    edge = [theme.accent if recipe == current else theme.surface for recipe in results["recipe"]]
    hover = "%{text}<br>%{x:.2f} bits, error %{y:.3g}<extra></extra>"
    plot = {
        "data": [
            {
                "type": "scatter",
                "mode": "markers+text",
                "x": results["bits_per_weight"].tolist(),
                "y": errors.tolist(),
                "text": results["recipe"].tolist(),
                "textposition": "top center",
                "textfont": {"size": 12, "color": theme.text},
                "name": "stored",
                "marker": {"size": 13, "color": theme.quantized, "line": {"color": edge, "width": 3}},
                "hovertemplate": hover,
                "cliponaxis": False,
            },
            {
                "type": "scatter",
                "mode": "markers",
                "x": results["nominal_bits"].tolist(),
                "y": errors.tolist(),
                "text": results["recipe"].tolist(),
                "name": "nominal",
                "marker": {"size": 10, "symbol": "circle-open", "color": theme.muted},
                "hovertemplate": hover,
            },
        ],
        "layout": themes.build_layout(
            theme,
            x="bits per weight",
            y=glossary.label_column(column) + (" (log scale)" if positive else ""),
            height=300,
            shapes=lines,
            showlegend=True,
            xaxis={"rangemode": "tozero"},
            # a margin of half a decade: one result alone has no range of its own
            yaxis={"type": "log", "range": np.log10([errors.min() / 3, errors.max() * 3]).tolist()} if positive else {},
            margin={"l": 64, "r": 48, "t": 32, "b": 48},
        ),
    }
    best = results.loc[errors.idxmin()]
    answer = (
        f"{themes.format_count(len(results), 'result')} {scope}; "
        f"the smallest {glossary.label_column(column)} is {themes.format_error(errors.min())} "
        f"with {best['recipe']}, which stores {themes.format_bits(best['bits_per_weight'])} bits per weight."
    )
    shown_columns = ["recipe", "bits_per_weight", "nominal_bits", "relative_error", "output_error"]
    return Figure("How much error for how many bits?", answer, plot, results[shown_columns])
