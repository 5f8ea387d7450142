"""Models beside each other: what each stores and how far it is from the original."""

from typing import TYPE_CHECKING

from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme

if TYPE_CHECKING:
    import pandas as pd

QUESTION = "Which model is the closest for its bits?"


def bits_against_divergence(table: "pd.DataFrame", *, theme: Theme = themes.LIGHT) -> Figure:
    """Stored bits across, KL with its 95 % interval upwards, one mark a model; the original is the line at 0.

    `table` is that of `analysis.models.compare_models`, with at least one model beside the original.
    """
    others = table.iloc[1:]
    above, below = others["kl_high"] - others["kl"], others["kl"] - others["kl_low"]
    plot = {
        "data": [
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": "quantized",
                "x": others["bits_per_weight"].tolist(),
                "y": others["kl"].tolist(),
                "text": others["model"].tolist(),
                "textposition": "top center",
                "textfont": {"size": 12, "color": theme.text},
                "marker": {"size": 13, "color": theme.quantized},
                "error_y": {"type": "data", "array": above.tolist(), "arrayminus": below.tolist(), "color": theme.quantized},
                "hovertemplate": "%{text}<br>%{x:.2f} bits, KL %{y:.3g}<extra></extra>",
                "cliponaxis": False,
            }
        ],
        "layout": themes.layout(
            theme,
            x="stored bits per weight",
            y="KL (nats per token)",
            height=320,
            xaxis={"rangemode": "tozero"},
            yaxis={"rangemode": "tozero"},
            margin={"l": 64, "r": 64, "t": 32, "b": 48},
        ),
    }
    return Figure(QUESTION, sentence(table), plot, table)


def sentence(table: "pd.DataFrame") -> str:
    """The closest model with its interval, and the smallest."""
    others = table.iloc[1:]
    best, least = others.loc[others["kl"].idxmin()], others.loc[others["bits_per_weight"].idxmin()]
    near = f"KL {themes.error(best['kl'])} ({themes.error(best['kl_low'])} to {themes.error(best['kl_high'])}, 95 %)"
    said = f"{best['model']} is the closest to the original: {near}, with {themes.bits(best['bits_per_weight'])} stored bits"
    if best["model"] == least["model"]:
        return f"{said}; none of {themes.count(len(others), 'model')} stores less."
    smallest = f"{themes.bits(least['bits_per_weight'])} bits, at KL {themes.error(least['kl'])}"
    return f"{said}; {least['model']} stores the least, {smallest}."
