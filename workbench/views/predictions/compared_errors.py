"""Errors of two runs, layer by layer: who loses less where?"""

import pandas as pd

from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.layer_grid import draw_layer_grid
from workbench.views.layer_names import label_layer
from workbench.views.theme import Theme


def draw_compared_errors(
    table: pd.DataFrame, selected: str | None, labels: tuple[str, str], *, theme: Theme = themes.LIGHT
) -> Figure:
    """A cell for each layer of `tabulate_errors`, blue where the run on show loses less and orange where it loses more; `labels`
    are what the run beside and the one on show are called."""
    measured = table.dropna(subset=["error_difference"])
    notes = [
        f"<br>{labels[0]}: {themes.format_error(line.error_beside)}<br>{labels[1]}: {themes.format_error(line.error_shown)}"
        for line in measured.itertuples()
    ]
    plot = draw_layer_grid(measured, "error_difference", selected, signed=True, notes=notes, theme=theme)
    return Figure("Which run loses less in which layer?", _describe(measured, labels), plot, measured)


def _describe(measured: pd.DataFrame, labels: tuple[str, str]) -> str:
    """How often the run on show has the smaller error, and where the two differ most."""
    if measured.empty:
        return "Neither run quantizes a layer."
    less, more = int((measured["error_difference"] < 0).sum()), int((measured["error_difference"] > 0).sum())
    far = measured.loc[measured["error_difference"].abs().idxmax()]
    outputs = "" if (measured["error_of"] == "outputs").all() else " Errors of weights where outputs have none."
    return (
        f"“{labels[1]}” has the smaller error in {less} of {len(measured)} layers and “{labels[0]}” in {more}; they differ "
        f"most in {label_layer(far)}: {themes.format_error(far['error_shown'])} and "
        f"{themes.format_error(far['error_beside'])}.{outputs}"
    )
