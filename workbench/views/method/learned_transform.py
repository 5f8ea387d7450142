"""The learned transform: how its loss fell, which inputs it scales and flips, and how it rotates them."""

from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis.method.learned_transform import LearnedTransform
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme

NO_ROTATION = "This transform does not rotate."
STRONGEST = 32  # inputs in the table twin of the diagonal


def draw_loss_curve(losses: pd.DataFrame, *, theme: Theme = themes.LIGHT) -> Figure:
    """Draw how the loss fell while a transform was learned, and the loss of what would be stored on held-out text.

    Args:
        losses: The table of `wb.measures.transform_losses`.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import pandas as pd
        >>> import workbench as wb
        >>> losses = pd.DataFrame({"step": [0, 1, 2], "loss": [0.4, 0.3, 0.25], "held_out": [0.42, float("nan"), 0.28]})
        >>> figure = wb.figures.transform_losses(losses)
        >>> figure.question
        'How does learning lower the loss?'
    """
    looks = losses.dropna(subset="held_out")
    hover = "step %{x}<br>%{y:.3g} of the output energy lost<extra></extra>"
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": losses["step"].tolist(),
            "y": losses["loss"].tolist(),
            "name": "training text",
            "line": {"color": theme.original, "width": 1},
            "hovertemplate": hover,
        },
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": looks["step"].tolist(),
            "y": looks["held_out"].tolist(),
            "name": "held-out text, as stored",
            "line": {"color": theme.quantized, "width": 3},
            "hovertemplate": hover,
        },
    ]
    plot = {"data": traces, "layout": themes.build_layout(theme, x="step", y="share of output energy lost", showlegend=True)}
    return Figure("How does learning lower the loss?", _describe_loss_curve(looks), plot, losses)


def _describe_loss_curve(looks: pd.DataFrame) -> str:
    """The first look at held-out text, the best, and when it was."""
    if looks.empty:
        return "Nothing has been measured on held-out text yet."
    first, best = looks.iloc[0], looks.loc[looks["held_out"].idxmin()]
    return (
        f"On held-out text the share of energy lost was {themes.format_error(first['held_out'])} after {int(first['step'])} "
        f"steps; the best one is stored: {themes.format_error(best['held_out'])} after {int(best['step'])}."
    )


def draw_diagonal(transform: LearnedTransform, *, theme: Theme = themes.LIGHT) -> Figure:
    """Λ and D±: the factor of every input, below zero where its sign is flipped."""
    values = transform.diagonal
    trace = {
        "type": "bar",
        "x": list(range(len(values))),
        "y": values.tolist(),
        "marker": {"color": np.where(values < 0, theme.accent, theme.original).tolist(), "line": {"width": 0}},
        "hovertemplate": "input %{x}: × %{y:.3g}<extra></extra>",
    }
    layout = themes.build_layout(theme, x="input feature", y="factor (negative: sign flipped)", bargap=0, height=300)
    sizes = np.abs(values)
    answer = (
        f"{transform.flipped:,} of {len(values):,} inputs change sign; factors run from {themes.format_error(sizes.min())} "
        f"to {themes.format_error(sizes.max())}."
    )
    order = np.argsort(-np.abs(np.log(sizes)), kind="stable")[:STRONGEST]
    table = pd.DataFrame({"input": order, "factor": values[order]})
    return Figure("Which inputs are scaled or flipped?", answer, {"data": [trace], "layout": layout}, table)


def draw_rotation(transform: LearnedTransform, *, theme: Theme = themes.LIGHT) -> Figure:
    """R₁ and R₂ as pictures beside each other, blue to orange; the rotation is their Kronecker product."""
    traces: list[dict[str, Any]] = []
    rows = []
    for number, matrix in enumerate(transform.rotations, 1):
        traces.append(
            {
                "type": "heatmap",
                "z": matrix,
                "colorscale": themes.DIVERGING,
                "zmin": -1.0,
                "zmax": 1.0,
                "xaxis": f"x{number}",
                "yaxis": f"y{number}",
                "showscale": number == len(transform.rotations),
                "colorbar": themes.build_colorbar(theme, "entry"),
                "hovertemplate": f"R{number}: row %{{y}}, column %{{x}}<br>%{{z:.3f}}<extra></extra>",
            }
        )
        turned = 1 - float(np.diag(matrix).mean())
        rows.append({"matrix factor": f"R{number}", "rows": len(matrix), "turned": turned})
    quiet = {"showgrid": False, "constrain": "domain"}
    down = {**quiet, "autorange": "reversed"}
    layout = themes.build_layout(theme, xaxis={**quiet, "domain": [0.0, 0.47]}, yaxis={**down, "scaleanchor": "x"})
    layout["xaxis2"] = layout["xaxis"] | {"domain": [0.53, 1.0], "anchor": "y2"}
    layout["yaxis2"] = layout["yaxis"] | {"anchor": "x2", "scaleanchor": "x2"}
    table = pd.DataFrame(rows, columns=["matrix factor", "rows", "turned"])
    return Figure("How are the inputs rotated?", describe_rotation(transform), {"data": traces, "layout": layout}, table)


def describe_rotation(transform: LearnedTransform) -> str:
    """The sizes of the factors and what the rotation costs."""
    if not transform.rotations:
        return "No rotation is stored: only the fixed Hadamard transform rotates." if transform.hadamard else NO_ROTATION
    fixed = "; the fixed Hadamard transform after it stores nothing" if transform.hadamard else ""
    sizes = " ⊗ ".join(f"{len(matrix)} × {len(matrix)}" for matrix in transform.rotations)
    return (
        f"A rotation of {len(transform.diagonal):,} inputs as {sizes}: {transform.multiply_adds:,} multiply-adds per token, "
        f"{themes.format_megabytes(transform.bits)} stored, including factors and signs{fixed}."
    )
