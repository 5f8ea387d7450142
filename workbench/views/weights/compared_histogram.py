"""A second quantization in the histogram of a layer's weights: how often each of its values occurs, and its levels."""

from dataclasses import replace

from workbench.analysis.weights.weight_sketch import Histogram, Levels
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme

REACH = 0.12  # of the plot's height, of the ticks that mark the levels


def add_histogram(
    figure: Figure, beside: Histogram, levels: Levels | None, labels: tuple[str, str], *, theme: Theme = themes.LIGHT
) -> Figure:
    """The figure of `draw_histogram` with the run beside it: its counts as a line, its levels as ticks at the bottom.

    `labels` are what that run and the one on show are called.
    """
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": beside.centres.tolist(),
        "y": beside.counts.tolist(),
        "yaxis": "y2",
        "name": labels[0],
        "line": {"color": theme.text, "width": 1.5, "shape": "hvh"},
        "hovertemplate": f"{labels[0]}: %{{y:,}} weights near %{{x:.3g}}<extra></extra>",
    }
    tick = {"type": "line", "y0": 0, "y1": REACH, "yref": "paper", "line": {"color": theme.text, "width": 3}}
    ticks = [] if levels is None else [{**tick, "x0": float(value), "x1": float(value)} for value in levels.values]
    layout = figure.plot["layout"]
    plot = {
        **figure.plot,
        "data": [*figure.plot["data"], line],
        "layout": {**layout, "shapes": [*layout.get("shapes", []), *ticks]},
    }
    what = "too many values to mark" if levels is None else f"{themes.format_count(len(levels.values), 'level')}, ticks below"
    answer = f"{figure.answer} Orange is “{labels[1]}”, the dark line “{labels[0]}” ({what})."
    return replace(figure, answer=answer, plot=plot, table=figure.table.assign(beside=beside.counts))
