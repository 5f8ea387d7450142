"""The roofline of a machine: the limits of memory bandwidth and arithmetic, and how close torch and packed layers come."""

from typing import Any

import numpy as np
import pandas as pd

from workbench.bench import Result
from workbench.bench.contestants import LAYER
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme

SPEED_QUESTION = "How close does each format come to the limits of this machine?"


def draw_roofline(result: Result, *, threads: int | None = None, state: str = "cold", theme: Theme = themes.LIGHT) -> Figure:
    """Draw the roofline of a machine: GFLOP/s over operations a byte that is read, with its two limits and measured products.

    Operations are those of the matrix product (two a weight and input), whatever a kernel really does, so that formats compare;
    looking sums up may therefore end above the multipliers' limit.

    Args:
        result: What `wb.measure_kernels` gives.
        threads: Which number of threads is drawn, the most that were measured when absent.
        state: "cold" or "hot" caches.
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import workbench as wb
        >>> result = wb.measure_kernels((64, 128), ["signs"], threads=[1], turns=3)
        >>> figure = wb.figures.roofline(result)
        >>> figure.table["format"].tolist()
        ['torch-fp32', 'signs']
    """
    count = max(limits.threads for limits in result.machine.limits) if threads is None else threads
    limits = result.machine.limits_at(count)
    table = result.table()
    rows = table[(table["threads"] == count) & (table["state"] == state)].copy()
    rows["intensity"] = 2 * result.rows * result.cols * rows["batch"] / rows["bytes"]
    rows["memory_allows"] = limits.read * rows["intensity"]
    span = np.array([rows["intensity"].min() / 2, rows["intensity"].max() * 2])
    knee = limits.multiply / limits.read
    x = np.unique(np.clip([span[0], knee, span[1]], *span))
    traces: list[dict[str, Any]] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": x.tolist(),
            "y": (limits.read * x).tolist(),
            "name": f"memory bandwidth, {limits.read:.0f} GB/s",
            "line": {"color": theme.muted, "width": 2},
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "lines",
            "x": span.tolist(),
            "y": [limits.multiply] * 2,
            "name": f"arithmetic, {limits.multiply:.0f} GFLOP/s",
            "line": {"color": theme.muted, "width": 2, "dash": "dot"},
            "hoverinfo": "skip",
        },
        _build_roofline_points(rows[rows["format"].str.startswith("torch")], "torch", theme.original, "operations", "circle"),
        _build_roofline_points(
            rows[~rows["format"].str.startswith("torch") & (rows["format"] != LAYER)],
            "packed",
            theme.quantized,
            "operations",
            "diamond",
        ),
        _build_roofline_points(rows[rows["format"] == LAYER], LAYER, theme.accent, "operations", "star"),
        _build_roofline_points(rows, "memory's limit", theme.muted, "memory_allows", "line-ew-open"),
    ]
    traces = [trace for trace in traces if trace["x"]]
    axis = {"type": "log", "dtick": 1}
    layout = themes.build_layout(
        theme,
        x="operations per byte read",
        y="GFLOP/s (of the matmul)",
        height=420,
        showlegend=True,
        xaxis=axis,
        yaxis=axis,
    )
    columns = ["format", "batch", "microseconds", "ratio", "bits_per_weight", "intensity", "operations", "memory_allows", "error"]
    twin = (
        rows[columns]
        .rename(columns={"ratio": "speedup", "bits_per_weight": "bits_held", "error": "distance"})
        .reset_index(drop=True)
    )
    return Figure(SPEED_QUESTION, _describe_roofline(rows, result.baseline), {"data": traces, "layout": layout}, twin)


def _build_roofline_points(rows: pd.DataFrame, name: str, colour: str, y: str, symbol: str) -> dict[str, Any]:
    """One dot a contestant and batch."""
    return {
        "type": "scatter",
        "mode": "markers+text" if y == "operations" else "markers",
        "text": rows["format"].tolist(),
        "textposition": [_choose_side(name, rank) for rank in rows["intensity"].rank(method="first")],
        "x": rows["intensity"].tolist(),
        "y": rows[y].tolist(),
        "name": name,
        "marker": {"color": colour, "size": 11, "symbol": symbol, "line": {"color": colour, "width": 2}},
        "customdata": rows[["format", "batch", "microseconds", "ratio"]].to_numpy().tolist(),
        "hovertemplate": "<b>%{customdata[0]}</b>, batch %{customdata[1]}<br>%{customdata[2]:.0f} µs, "
        "%{customdata[3]:.1f} × torch<br>%{y:.0f} GFLOP/s<extra></extra>",
    }


def _choose_side(name: str, rank: float) -> str:
    """Where a dot's label stands: packed formats are near each other, and the layer stands beside a format like it."""
    is_above = name == LAYER or (name == "packed" and rank % 2 == 0)
    return "top center" if is_above else "bottom center"


def _describe_roofline(rows: pd.DataFrame, baseline: str) -> str:
    """The measured layer, else the fastest packed format, at the smallest batch: its time, and its share of the limit."""
    plain = {"torch-fp32": "float32", "torch-bf16": "bfloat16"}[baseline]
    packed = rows[~rows["format"].str.startswith("torch")]
    if packed.empty:
        return "No packed format was measured."
    small = packed[packed["batch"] == packed["batch"].min()]
    layer_rows = small[small["format"] == LAYER]
    best = small.loc[small["ratio"].idxmax()] if layer_rows.empty else layer_rows.iloc[0]
    share = best["operations"] / best["memory_allows"]
    return (
        f"At batch {int(best['batch'])}, {best['format']} takes {best['microseconds']:.0f} µs, {best['ratio']:.1f} times as fast "
        f"as torch in {plain}, and reaches {themes.format_percent(share)} of the measured "
        "memory bandwidth."
    )
