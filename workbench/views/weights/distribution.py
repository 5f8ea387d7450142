"""The distribution of one layer's weights: Q–Q plot, ranges of rows and columns, largest weights, singular values."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis.weights.distribution import compute_energy_share
from workbench.analysis.weights.weight_sketch import OUTLIER
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme

MAX_LINES = 1500  # rows or columns that are drawn as lines of their own
TENTH = 0.1  # of the singular values, for the sentence


def draw_qq_plot(original: pd.DataFrame, quantized: pd.DataFrame | None = None, *, theme: Theme = themes.LIGHT) -> Figure:
    """Quantile–quantile plot of `quantile_pairs`, with the normal and the Laplace distribution as lines."""
    normal = original["normal"].tolist()
    data = [
        _build_law_line(normal, normal, "normal distribution", "dash", theme),
        _build_law_line(normal, original["laplace"].tolist(), "Laplace distribution", "dot", theme),
        _build_quantile_points(original, "original", theme.original),
    ]
    if quantized is not None:
        data.append(_build_quantile_points(quantized, "quantized", theme.quantized))
    layout = themes.build_layout(
        theme, x="quantile of the normal distribution (standard deviations)", y="quantile of the weights", hovermode="closest"
    )
    table = original if quantized is None else original.assign(quantized_sigma=quantized["weights"])
    return Figure("Are the weights normally distributed?", _describe_tail(original), {"data": data, "layout": layout}, table)


def _build_law_line(x: list[float], y: list[float], name: str, dash: str, theme: Theme) -> dict[str, Any]:
    """Where a known distribution would lie."""
    line = {"color": theme.muted, "dash": dash, "width": 1.5}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": line, "hoverinfo": "skip"}


def _build_quantile_points(pairs: pd.DataFrame, name: str, color: str) -> dict[str, Any]:
    """The quantiles of one matrix."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": pairs["normal"].tolist(),
        "y": pairs["weights"].tolist(),
        "customdata": pairs["share_below"].tolist(),
        "name": name,
        "marker": {"color": color, "size": 6},
        "hovertemplate": f"{name}: %{{customdata:.3%}} of the weights are below %{{y:.2f}} σ<extra></extra>",
    }


def _describe_tail(pairs: pd.DataFrame) -> str:
    """Where one weight in a thousand lies, against both laws, and which law is nearer."""
    at = int((pairs["share_below"] - 0.999).abs().argmin())
    line = pairs.iloc[at]
    off = {name: float((pairs["weights"] - pairs[name]).abs().mean()) for name in ("normal", "laplace")}
    nearer = "the normal distribution" if off["normal"] <= off["laplace"] else "the Laplace distribution"
    share = themes.format_percent(1 - float(line["share_below"]))
    return (
        f"{share} of the weights lie above {line['weights']:.2f} σ (normal distribution: {line['normal']:.2f}, Laplace "
        f"distribution: {line['laplace']:.2f}); overall they are closer to {nearer}."
    )


def draw_ranges(
    original: pd.DataFrame, quantized: pd.DataFrame | None = None, chosen: Sequence[int] = (), *, theme: Theme = themes.LIGHT
) -> Figure:
    """Least to largest weight of every row or column (`tabulate_ranges`), with the band of the central 90 %.

    Where there are more than can be told apart, neighbours are drawn as one; the table has all.
    """
    side = original.columns[0]
    drawn, step = _merge_neighbours(original)
    data = [
        _build_band_edge(drawn, side, "least", theme.original, "original, minimum and maximum", shown=True),
        _build_band_edge(drawn, side, "most", theme.original, "original, minimum and maximum", shown=False),
        _build_band_edge(drawn, side, "low", theme.original, "", shown=False, width=0),
        _build_band_edge(drawn, side, "high", theme.original, "central 90 % of the weights", shown=True, width=0)
        | _build_band_fill(theme.original),
    ]
    if quantized is not None:
        after, _ = _merge_neighbours(quantized)
        data += [
            _build_band_edge(after, side, "least", theme.quantized, "quantized, minimum and maximum", shown=True),
            _build_band_edge(after, side, "most", theme.quantized, "quantized, minimum and maximum", shown=False),
        ]
    layout = themes.build_layout(
        theme,
        x=f"{side} ({'output' if side == 'row' else 'input'} feature)",
        y="weight",
        hovermode="x",
        shapes=[build_mark_line(number, theme) for number in chosen],
        xaxis={"range": [-0.5, len(original) - 0.5]},
    )
    table = original if quantized is None else original.merge(quantized, on=side, suffixes=("", " quantized"))
    question = f"Do all {side}s have the same range?"
    answer = _describe_ranges(original, side)
    if step > 1:
        answer += f" Each step of the figure shows the minimum and maximum of {step} {side}s."
    return Figure(question, answer, {"data": data, "layout": layout}, table)


def _merge_neighbours(table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """Neighbouring lines taken together so that at most `MOST` are left, and how many make one."""
    step = -(-len(table) // MAX_LINES)
    if step == 1:
        return table, 1
    how = {table.columns[0]: "first", "least": "min", "low": "min", "median": "median", "high": "max", "most": "max"}
    return table.groupby(np.arange(len(table)) // step).agg(how), step


def _build_band_edge(
    table: pd.DataFrame, side: str, column: str, color: str, name: str, *, shown: bool, width: float = 1
) -> dict[str, Any]:
    """One edge of a band."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": table[side].tolist(),
        "y": table[column].tolist(),
        "name": name,
        "legendgroup": name,
        "showlegend": shown,
        "line": {"color": color, "width": width, "shape": "hvh"},
        "hovertemplate": f"{side} %{{x}}, {column} %{{y:.3g}}<extra></extra>",
    }


def _build_band_fill(color: str) -> dict[str, Any]:
    """Filled down to the trace before."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return {"fill": "tonexty", "fillcolor": f"rgba({red},{green},{blue},0.35)"}


def build_mark_line(number: int, theme: Theme, *, axis: str = "x") -> dict[str, Any]:
    """A line in the selection's colour at a chosen row or column."""
    line = {"color": theme.accent, "width": 2}
    if axis == "x":
        return {"type": "line", "x0": number, "x1": number, "y0": 0, "y1": 1, "yref": "paper", "line": line}
    return {"type": "line", "y0": number, "y1": number, "x0": 0, "x1": 1, "xref": "paper", "line": line}


def _describe_ranges(table: pd.DataFrame, side: str) -> str:
    """The widest and the narrowest, and the middle."""
    width = table["most"] - table["least"]
    wide, narrow = int(width.argmax()), int(width.argmin())
    times = float(width[wide] / width.median()) if width.median() else float("inf")
    return (
        f"{side.capitalize()} {table[side][wide]:,} has the widest range, from {table['least'][wide]:.3g} to "
        f"{table['most'][wide]:.3g}: {times:.2f} × the median {side}; "
        f"{side} {table[side][narrow]:,} has the narrowest, {width[narrow]:.3g}."
    )


def draw_column_bands(chosen: pd.DataFrame, everything: pd.DataFrame, *, theme: Theme = themes.LIGHT) -> Figure:
    """The weights of a few columns beside all weights of the layer, as bands (see `tabulate_ranges`)."""
    table = pd.concat([everything.assign(column="all columns"), chosen.assign(column=[f"column {c}" for c in chosen["column"]])])
    traces = [
        {
            "type": "bar",
            "x": table["column"].tolist(),
            "base": table[low].tolist(),
            "y": (table[high] - table[low]).tolist(),
            "width": width,
            "name": name,
            "marker": {"color": color, "line": {"width": 0}},
            "customdata": table[[low, high]].to_numpy().tolist(),
            "hovertemplate": f"%{{x}}, {name}: %{{customdata[0]:.3g}} to %{{customdata[1]:.3g}}<extra></extra>",
        }
        for low, high, name, width, color in (
            ("least", "most", "minimum to maximum", 0.12, theme.muted),
            ("low", "high", "central 90 % of the weights", 0.5, theme.original),
        )
    ]
    middle = {
        "type": "scatter",
        "mode": "markers",
        "x": table["column"].tolist(),
        "y": table["median"].tolist(),
        "name": "median",
        "marker": {"color": theme.accent, "symbol": "line-ew-open", "size": 22, "line": {"width": 3}},
    }
    layout = themes.build_layout(theme, y="weight", height=320, barmode="overlay", xaxis={"type": "category", "showgrid": False})
    widths = (chosen["high"] - chosen["low"]).to_numpy()
    full_range = float(everything["high"].iloc[0] - everything["low"].iloc[0])
    widest = int(np.abs(np.log(np.maximum(widths, 1e-30) / (full_range or 1.0))).argmax())
    times = widths[widest] / (full_range or 1.0)
    who = f"column {chosen['column'].iloc[widest]}"
    answer = (
        f"The central 90 % of the weights of {who} span {widths[widest]:.3g}, {times:.2f} × the {full_range:.3g} of all columns."
    )
    question = "What do the weights of these channels look like?"
    return Figure(question, answer, {"data": [*traces, middle], "layout": layout}, table)


def draw_outliers(
    table: pd.DataFrame,
    shape: tuple[int, int],
    beyond: float,
    chosen: tuple[Sequence[int], Sequence[int]] = ((), ()),
    *,
    theme: Theme = themes.LIGHT,
) -> Figure:
    """Where the largest weights sit (`weights.distribution.largest`); `beyond` is the share of weights beyond 6 σ of all.

    `chosen` are marked rows and columns.
    """
    rows, cols = shape
    trace = {
        "type": "scatter",
        "mode": "markers",
        "x": table["column"].tolist(),
        "y": table["row"].tolist(),
        "customdata": table[["value", "sigma"]].to_numpy().tolist(),
        "name": "largest weights",
        "marker": {
            "size": (4 + 14 * table["sigma"].abs() / table["sigma"].abs().max()).tolist(),
            "color": theme.original,
            "opacity": 0.75,
            "line": {"width": 0},
        },
        "hovertemplate": "row %{y}, column %{x}<br>%{customdata[0]:.3g}, %{customdata[1]:.1f} σ<extra></extra>",
    }
    layout = themes.build_layout(
        theme,
        x="column (input feature)",
        y="row (output feature)",
        height=380,
        hovermode="closest",
        shapes=[
            *(build_mark_line(row, theme, axis="y") for row in chosen[0]),
            *(build_mark_line(col, theme) for col in chosen[1]),
        ],
        xaxis={"range": [-0.02 * cols, 1.02 * cols]},  # no marker is cut
        yaxis={"range": [1.03 * rows, -0.03 * rows]},
    )
    return Figure("Where are the outliers?", _describe_outliers(table, beyond), {"data": [trace], "layout": layout}, table)


def _describe_outliers(table: pd.DataFrame, beyond: float) -> str:
    """The largest weight, how many lie far out, and whether they share a row or column."""
    first, many = table.iloc[0], len(table)
    where = f"row {first['row']:.0f}, column {first['column']:.0f}"
    text = f"The largest weight is {first['value']:.3g} ({abs(first['sigma']):.1f} σ), {where}; "
    text += f"{themes.format_percent(beyond)} of all weights lie beyond {OUTLIER:.0f} σ."
    counts = ((side, table[side].value_counts()) for side in ("row", "column"))
    side, count = max(counts, key=lambda side_count: int(side_count[1].iloc[0]))
    return f"{text} Of the {many} largest, {count.iloc[0]} share {side} {count.index[0]}."


def draw_singular_values(table: pd.DataFrame, *, theme: Theme = themes.LIGHT) -> Figure:
    """Singular values by rank (`weights.distribution.spectra`)."""
    parts = {
        "singular": ("original", theme.original),
        "singular_quantized": ("quantized", theme.quantized),
        "singular_difference": ("difference", theme.muted),
    }
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": table["rank"].tolist(),
            "y": table[column].tolist(),
            "name": name,
            "line": {"color": color, "width": 2, "dash": "dot" if name == "difference" else "solid"},
            "hovertemplate": f"{name}: %{{y:.3g}} at rank %{{x}}<extra></extra>",
        }
        for column, (name, color) in parts.items()
        if column in table
    ]
    layout = themes.build_layout(theme, x="rank", y="singular value", hovermode="x", yaxis={"rangemode": "tozero"})
    return Figure(
        "Is the matrix, or its error, of low rank?", _describe_singular_values(table), {"data": data, "layout": layout}, table
    )


def _describe_singular_values(table: pd.DataFrame) -> str:
    """What a tenth of the singular values holds, of the matrix and of the error."""
    count = max(1, round(TENTH * len(table)))
    energy = themes.format_percent(compute_energy_share(table["singular"].to_numpy(), count))
    text = f"The first {count} of {len(table)} singular values hold {energy} of the energy"
    if "singular_difference" not in table:
        return f"{text}; quantize the layer to see the spectrum of its error."
    lost_share = compute_energy_share(table["singular_difference"].to_numpy(), count)
    even = count / len(table)
    what = (
        "a low-rank correction of that rank would recover that share" if lost_share > 2 * even else "the error is not of low rank"
    )
    return f"{text}; the same number holds, of the error, {themes.format_percent(lost_share)}: {what}."
