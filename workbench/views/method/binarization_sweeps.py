"""Alternating refined binarization: how sweeps lower the error, and how a row's scales and mean converge."""

from typing import Any

import pandas as pd

from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme


def draw_sweep_errors(table: pd.DataFrame, *, theme: Theme = themes.LIGHT) -> Figure:
    """Draw the squared error of each coder after each sweep, as a share of the start's.

    Args:
        table: The table of `wb.measures.sweep_errors`.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.self_attn.k_proj"
        >>> trace = wb.measures.Trace()
        >>> result = wb.quantize(model, layer, wb.recipe("binary", sweeps=3), on_progress=trace.see)
        >>> wb.figures.sweep_errors(wb.measures.sweep_errors(trace.sweeps)).question
        'How much do sweeps help?'
    """
    coders = table["coder"].unique().tolist()
    traces: list[dict[str, Any]] = []
    for index, coder in enumerate(coders):
        rows = table[table["coder"] == coder]
        traces.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": rows["sweep"].tolist(),
                "y": rows["share"].tolist(),
                "customdata": rows["running"].tolist(),
                "name": f"coder {coder + 1}",
                "line": {"color": themes.CATEGORIES[index % len(themes.CATEGORIES)], "width": 2},
                "hovertemplate": "sweep %{x}: %{y:.2%} of the initial error<br>%{customdata} not converged<extra></extra>",
            }
        )
    layout = themes.build_layout(
        theme,
        x="sweep",
        y="squared error, relative to the start",
        height=320,
        showlegend=len(coders) > 1,
        xaxis={"dtick": max(1, int(table["sweep"].max()) // 10)},
        yaxis={"tickformat": ".2~%"},
    )
    return Figure("How much do sweeps help?", _describe_sweep_errors(table), {"data": traces, "layout": layout}, table)


def _describe_sweep_errors(table: pd.DataFrame) -> str:
    """How many sweeps, and the error that is left."""
    last = table.groupby("coder").tail(1)
    share = last["error"].sum() / table.loc[table["sweep"] == 0, "error"].sum()
    fits = int(table.loc[table["sweep"] == 0, "running"].sum())
    groups = "the layer's scales" if fits == 1 else f"{fits:,} sets of scales"
    return (
        f"After at most {themes.format_count(int(table['sweep'].max()), 'sweep')} over {groups}, "
        f"{themes.format_percent(share)} of the "
        "initial error is left; no sweep raises it."
    )


def draw_sweep_paths(table: pd.DataFrame, scope: str = "", *, theme: Theme = themes.LIGHT) -> Figure:
    """Draw scale α and mean μ of a few weight rows, sweep by sweep.

    Args:
        table: The table of `wb.measures.sweep_paths`.
        scope: What the rows belong to, for the sentence.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.self_attn.k_proj"
        >>> trace = wb.measures.Trace()
        >>> result = wb.quantize(model, layer, wb.recipe("binary", sweeps=3), on_progress=trace.see)
        >>> wb.figures.sweep_paths(wb.measures.sweep_paths(trace.sweeps[0])).question
        'How do the scale and mean of a row converge?'
    """
    meant = bool(table["mean"].notna().any())
    rows, sweeps = table["row"].unique().tolist(), int(table["sweep"].max())
    traces = [_build_sweep_line(table, "scale", row, plane) for row in rows for plane in table["plane"].unique()]
    traces += [_build_sweep_line(table[table["plane"] == 1], "mean", row, 1) for row in rows] if meant else []
    layout = themes.build_layout(
        theme,
        x="sweep",
        y="scale α",
        height=440 if meant else 320,
        showlegend=False,
        xaxis={"dtick": max(1, sweeps // 10)} | ({"anchor": "y2"} if meant else {}),
        yaxis={"domain": [0.48, 1.0]} if meant else {},
    )
    if meant:
        layout["yaxis2"] = layout["yaxis"] | {"domain": [0.0, 0.4], "title": layout["yaxis"]["title"] | {"text": "mean μ"}}
    plot = {"data": traces, "layout": layout}
    return Figure("How do the scale and mean of a row converge?", _describe_sweep_paths(table, scope), plot, table)


def _build_sweep_line(table: pd.DataFrame, what: str, row: int, plane: int) -> dict[str, Any]:
    """One row's scale or mean over the sweeps; second planes are dashed."""
    rows = table[(table["row"] == row) & (table["plane"] == plane)]
    name = f"row {row}" + (f", plane {plane}" if plane > 1 else "")
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": rows["sweep"].tolist(),
        "y": rows[what].tolist(),
        "yaxis": "y2" if what == "mean" else "y",
        "name": name,
        "line": {"color": themes.CATEGORIES[row % len(themes.CATEGORIES)], "width": 2, "dash": "solid" if plane == 1 else "dash"},
        "marker": {"size": 5},
        "hovertemplate": f"{name}<br>{what} %{{y:.4g}} after sweep %{{x}}<extra></extra>",
    }


def _describe_sweep_paths(table: pd.DataFrame, scope: str) -> str:
    """How far the scales of the watched rows moved."""
    first = table[(table["sweep"] == 0) & (table["plane"] == 1)]["scale"].to_numpy()
    last = table[(table["sweep"] == table["sweep"].max()) & (table["plane"] == 1)]["scale"].to_numpy()
    moved = max((abs(b - a) / a for a, b in zip(first, last, strict=True) if a), default=0.0)
    where = f" of {scope}" if scope else ""
    return (
        f"The first {themes.format_count(len(first), 'row')}{where}: from the closed form on, a first scale changes by at most "
        f"{themes.format_percent(moved)} in {themes.format_count(int(table['sweep'].max()), 'sweep')}."
    )
