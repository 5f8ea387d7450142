"""Errors of two runs, layer by layer: who loses less where?"""

import pandas as pd

from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme
from workbench.views.weights.layer_map import label_block, label_layer, shorten_matrix_name


def draw_compared_errors(
    table: pd.DataFrame, selected: str | None, labels: tuple[str, str], *, theme: Theme = themes.LIGHT
) -> Figure:
    """Two bars a layer of `tabulate_errors`; `labels` are what the run beside and the one on show are called."""
    measured = table.dropna(subset=["error_difference"])
    places = [f"{label_block(line.block)} · {shorten_matrix_name(line.matrix)}" for line in measured.itertuples()]
    edge = [theme.accent if name == selected else "rgba(0,0,0,0)" for name in measured["name"]]
    traces = [
        {
            "type": "bar",
            "x": places,
            "y": measured[column].tolist(),
            "name": label,
            "customdata": measured["name"].tolist(),
            "marker": {"color": colour, "line": {"color": edge, "width": 2}},
            "hovertemplate": f"%{{customdata}}<br>{label}: error %{{y:.3g}}<extra></extra>",
        }
        for column, label, colour in (
            ("error_beside", labels[0], theme.original),
            ("error_shown", labels[1], theme.quantized),
        )
    ]
    layout = themes.build_layout(
        theme,
        x="layer (block · matrix)",
        y="share of energy lost",
        barmode="group",
        bargap=themes.compute_bar_gap(len(places), 0.25),
        xaxis={"type": "category", "tickangle": -60 if len(places) > 6 else 0, "showgrid": False, "tickfont": {"size": 11}},
        yaxis={"rangemode": "tozero"},
        showlegend=True,
    )
    return Figure(
        "Which run loses less in which layer?", _describe(measured, labels), {"data": traces, "layout": layout}, measured
    )


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
