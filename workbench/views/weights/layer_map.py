"""The layer map: every layer of a model as one cell, block by block, coloured by a column of the layer table."""

from collections.abc import Collection
from dataclasses import replace

import pandas as pd

from workbench.analysis import glossary
from workbench.analysis.weights.sketch_cache import Moments
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.layer_grid import draw_layer_grid
from workbench.views.layer_names import label_layer
from workbench.views.theme import Theme

QUESTIONS = {
    "parameters": "Where are the weights?",
    "std": "Which layers have the largest spread of weights?",
    "absmax": "Which layers hold the largest weights?",
    "kurtosis": "Which layers have heavy tails?",
    "outlier_share": "Which layers have outliers?",
    "bits_per_weight": "How many bits does each layer store?",
    "relative_error": "Which layers have the largest weight error?",
    "output_error": "Which layers have the largest output error?",
    "sensitivity": "Which layers is the model most sensitive to?",
    "fork_blame": "Which layers are to blame for the fork?",
    "error_difference": "Which layers lose more than in the other run?",
    "bits_difference": "Which layers store more than in the other run?",
}
SIGNED = ("error_difference", "bits_difference")  # differences of two runs, coloured from blue (less) to orange (more)


def draw_layer_map(
    layers: pd.DataFrame,
    column: str,
    selected: str | None,
    *,
    marked: Collection[str] = (),
    painted: Collection[str] = (),
    theme: Theme = themes.LIGHT,
) -> Figure:
    """The layer map of `layers` (name, block, matrix and the numbers), coloured by `column`; one cell a layer. The `selected`
    layer has a frame, `marked` ones a dotted one, and `painted` ones a corner. A box drawn over cells selects their points.
    """
    is_signed = column in SIGNED
    plot = draw_layer_grid(layers, column, selected, marked=marked, painted=painted, signed=is_signed, theme=theme)
    return Figure(
        QUESTIONS.get(column, f"How do layers differ in {glossary.label_column(column)}?"),
        _describe_layer_map(layers, column),
        plot,
        layers,
    )


def add_moments_sentence(figure: Figure, moments: Moments) -> Figure:
    """The map with a sentence about all weights that have been read, taken together."""
    together = (
        f" All {moments.weights:,} weights: spread {moments.std:.3g}, kurtosis {moments.kurtosis:.3g}, "
        f"largest {moments.absmax:.3g}."
    )
    return replace(figure, answer=figure.answer + together)


def _describe_layer_map(layers: pd.DataFrame, column: str) -> str:
    """Who is highest and who lowest; for a difference also where it is less, and where more."""
    measured = layers.dropna(subset=[column])
    if column in SIGNED and not measured.empty:
        return _describe_signed_map(measured, column)
    if measured.empty:
        return (
            f"No layer has a value for {glossary.label_column(column)} yet: quantize a layer, or the whole model, on the right."
        )
    top, low = measured.loc[measured[column].astype(float).idxmax()], measured.loc[measured[column].astype(float).idxmin()]
    name = glossary.label_column(column)
    text = f"Highest {name}: {label_layer(top)} ({glossary.format_value(column, top[column])})"
    if len(measured) > 1 and top[column] == low[column]:
        return f"All {len(measured)} layers have the same {name}: {glossary.format_value(column, top[column])}."
    if len(measured) > 1:
        text += f"; lowest: {label_layer(low)} ({glossary.format_value(column, low[column])})"
    share = f" ({len(measured)} of {len(layers)} layers measured)" if len(measured) < len(layers) else ""
    return f"{text}{share}."


def _describe_signed_map(measured: pd.DataFrame, column: str) -> str:
    """How many layers have less than in the other run, how many more, and which is furthest on each side."""
    values, what = measured[column].astype(float), "error" if column == "error_difference" else "stored bits"
    if not values.any():
        return f"All {len(measured)} layers have the same {what} in both runs."
    parts = [
        f"{int((values < 0).sum())} of {len(measured)} layers have less {what} (blue), {int((values > 0).sum())} more (orange)"
    ]
    for index, side in ((values.idxmin(), values.min() < 0), (values.idxmax(), values.max() > 0)):
        if side:
            parts.append(f"{label_layer(measured.loc[index])} {glossary.format_value(column, values[index])}")
    return "; ".join(parts).replace("-", "−") + "."
