"""Rate and distortion: perplexity or KL against stored bits, one mark per model, with its 95 % interval."""

from typing import Any

import pandas as pd

from workbench.views import theme as themes
from workbench.views.theme import Theme

TICKS = [0.5, 0.7, 1, 1.5, 2, 3, 4, 6, 8, 16, 32]
TITLES = {"perplexity": "perplexity", "kl": "KL (nats per token)"}


def plot(
    table: pd.DataFrame, named: str, figure: str, current: str | None, theme: Theme, mode: str = "markers+text"
) -> dict[str, Any]:
    """Stored bits across, most at the left, and the column `figure` upwards with `figure`_low and _high.

    `named` is the column with each row's name, `current` the one to mark. Upwards the scale is logarithmic where all are above 0.
    """
    edge = [theme.accent if name == current else theme.surface for name in table[named]]
    positive = bool((table[f"{figure}_low"].astype(float).fillna(table[figure]) > 0).all())
    # names of neighbours stand above and below in turn, so that they do not lie on each other
    places = table["bits_per_weight"].rank(method="first").mod(2).map({0: "bottom center", 1: "top center"})
    trace = {
        "type": "scatter",
        "mode": mode,
        "x": table["bits_per_weight"].tolist(),
        "y": table[figure].tolist(),
        "text": table[named].tolist(),
        "textposition": places.tolist(),
        "textfont": {"size": 12, "color": theme.text},
        "cliponaxis": False,
        "error_y": themes.build_error_bars(table, figure, theme.muted, thickness=1),
        "line": {"color": theme.quantized, "width": 2},
        "marker": {"color": theme.quantized, "size": 11, "line": {"color": edge, "width": 3}},
        "hovertemplate": f"%{{text}}<br>%{{x:.2f}} stored bits, {TITLES[figure]} %{{y:.3g}}<extra></extra>",
    }
    layout = themes.build_layout(
        theme,
        x="stored bits per weight (log scale)",
        y=f"{TITLES[figure]}{' (log scale)' if positive else ''}",
        height=300,
        xaxis={"type": "log", "autorange": "reversed", "tickvals": TICKS, "ticktext": [f"{tick:g}" for tick in TICKS]},
        yaxis={"type": "log"} if positive else {"rangemode": "tozero"},
        margin={"l": 64, "r": 64, "t": 32, "b": 48},
    )
    return {"data": [trace], "layout": layout}
