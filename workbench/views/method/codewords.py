"""A codebook in detail: codewords as pictures, their use and error, where selected ones occur, and how well they fit."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from workbench.analysis.method.codewords import Book, Positions
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme

MAX_CODEWORDS = 32  # codewords on one picture
ORDERS = {"most used": ("count", False), "least used": ("count", True), "largest error": ("served", False)}
DEAD = 0.5  # where codewords that nothing uses stand on a logarithmic axis
LISTED = 8


def draw_codeword_scatter(
    book: Book, table: pd.DataFrame, entropy: float, chosen: Sequence[int] = (), *, theme: Theme = themes.LIGHT
) -> Figure:
    """Every codeword by its use and by the error of the weights under it (`method.codewords.code_table`).

    The first trace holds one point a codeword, in the order of their numbers.
    """
    floor = table["served"].min() if table["served"].notna().any() else 0.0
    shown = table.assign(count=table["count"].clip(lower=DEAD), served=table["served"].fillna(floor))
    layout = themes.build_layout(
        theme,
        x="vectors that use it (dead codewords at the left edge)",
        y="relative error of its weights",
        height=380,
        dragmode="select",
        hovermode="closest",
        xaxis=themes.LOGARITHMIC,
    )
    marked = shown[shown["codeword"].isin(list(chosen))]
    data = [
        _build_codeword_points(shown, "codewords", theme.quantized, 7),
        _build_codeword_points(marked, "chosen", theme.accent, 12),
    ]
    return Figure(
        "Is every codeword used?",
        _describe_codeword_use(book, table, entropy),
        {"data": data, "layout": layout},
        table,
    )


def _build_codeword_points(table: pd.DataFrame, name: str, color: str, size: int) -> dict[str, Any]:
    """A marker a codeword."""
    return {
        "type": "scatter",
        "mode": "markers",
        "x": table["count"].tolist(),
        "y": table["served"].tolist(),
        "text": [f"code {code}: {pattern}" for code, pattern in zip(table["codeword"], table["pattern"], strict=True)],
        "name": name,
        "marker": {"color": color, "size": size, "line": {"width": 0}},
        "selected": {"marker": {"opacity": 1}},
        "unselected": {"marker": {"opacity": 0.6}},
        "hovertemplate": "%{text}<br>%{x:,} vectors, error %{y:.3g}<extra></extra>",
    }


def _describe_codeword_use(book: Book, table: pd.DataFrame, entropy: float) -> str:
    """How evenly codes are used, how many are dead, and what indices could shrink to."""
    dead = int((table["count"] == 0).sum())
    unused = "none is dead" if dead == 0 else f"{dead:,} {'is' if dead == 1 else 'are'} dead"
    most = table.loc[table["count"].idxmax()]
    return (
        f"Of {book.entries:,} codewords {unused}; the most used, code {most['codeword']}, has "
        f"{themes.format_percent(float(most['share']))} of the vectors. "
        f"Each index costs {book.width} bits; its entropy is {entropy:.2f} bits."
    )


def draw_codewords(
    book: Book, table: pd.DataFrame, order: str, chosen: Sequence[int] = (), *, theme: Theme = themes.LIGHT
) -> Figure:
    """Codewords as rows of little squares, with their use and the error of their weights beside them; chosen ones first."""
    column, ascending = ORDERS[order]
    first = table[table["codeword"].isin(list(chosen))]
    rest = table.drop(first.index).sort_values(column, ascending=ascending, kind="stable")
    shown = pd.concat([first, rest]).head(MAX_CODEWORDS)
    names = [f"code {code}" for code in shown["codeword"]]
    words = book.words[shown["codeword"].tolist()].numpy()
    top = float(np.abs(words).max()) or 1.0
    scale = [[0.0, theme.original], [1.0, theme.quantized]] if book.binary else themes.DIVERGING
    hover = "sign" if book.binary else "value"
    picture = {
        "type": "heatmap",
        "z": words,
        "x": list(range(1, book.length + 1)),
        "y": names,
        "colorscale": scale,
        "zmin": -top,
        "zmax": top,
        "showscale": False,
        "xgap": 2,
        "ygap": 3,
        "hovertemplate": "%{y}, place %{x}: " + hover + " %{z:+.3g}<extra></extra>",
    }
    accent = [theme.accent if code in chosen else theme.original for code in shown["codeword"]]
    side = {"type": "bar", "orientation": "h", "y": names, "showlegend": False, "marker": {"color": accent}}
    use = side | {"x": shown["count"].tolist(), "xaxis": "x2", "hovertemplate": "%{y}: %{x:,} vectors<extra></extra>"}
    error = side | {"x": shown["served"].tolist(), "xaxis": "x3", "hovertemplate": "%{y}: error %{x:.3g}<extra></extra>"}
    layout = themes.build_layout(theme, height=110 + 20 * len(shown), bargap=0.3)
    axis = layout["xaxis"]
    layout["xaxis"] = axis | {"domain": [0, 0.5], "showgrid": False, "title": axis["title"] | {"text": "position in the vector"}}
    layout["xaxis2"] = axis | {"domain": [0.54, 0.75], "title": axis["title"] | {"text": "vectors"}, "nticks": 4}
    layout["xaxis3"] = axis | {"domain": [0.79, 1], "title": axis["title"] | {"text": "relative error"}, "nticks": 4}
    layout["yaxis"] |= {"autorange": "reversed", "type": "category", "showgrid": False, "dtick": 1}
    plot = {"data": [picture, use, error], "layout": layout}
    return Figure("What do the codewords look like?", _describe_codewords(book, shown, order, len(first)), plot, shown)


def _describe_codewords(book: Book, shown: pd.DataFrame, order: str, first: int) -> str:
    """What is on the picture, and the two words that are most alike."""
    ahead = f", {themes.format_count(first, 'chosen one')} first" if first else ""
    text = f"{len(shown)} of {book.entries:,} codewords of {book.length} {'signs' if book.binary else 'values'}, {order}{ahead}"
    colours = "blue-grey is −, orange is +" if book.binary else "blue is negative, orange positive"
    near = shown.dropna(subset=["gap"])
    if near.empty:
        return f"{text}; {colours}."
    pair = near.loc[near["gap"].idxmin()]
    apart = themes.format_count(int(pair["gap"]), "sign") if book.binary else f"a distance of {pair['gap']:.3g}"
    return f"{text}; {colours}. Codes {pair['codeword']} and {int(pair['nearest'])} are {apart} apart."


def draw_code_positions(
    positions: Positions, table: pd.DataFrame, codes: Sequence[int], shape: tuple[int, int], *, theme: Theme = themes.LIGHT
) -> Figure:
    """Where the chosen codes sit in the matrix (`method.codewords.positions`); `table` is of `error_profile`."""
    trace = {
        "type": "heatmap",
        "z": positions.values,
        "x0": (positions.step * positions.length - 1) / 2,
        "dx": positions.step * positions.length,
        "y0": (positions.row_step - 1) / 2,
        "dy": positions.row_step,
        "colorscale": [[0.0, theme.raised], [1.0, theme.accent]],
        "zmin": 0.0,
        "zmax": float(positions.values.max()) or 1.0,
        "colorbar": themes.build_colorbar(theme, "share of the vectors") | {"tickformat": ".0%"},
        "hovertemplate": "near row %{y:.0f}, column %{x:.0f}: %{z:.1%}<extra></extra>",
    }
    layout = themes.build_layout(
        theme,
        x="column (in the coded basis)",
        y="row (output feature)",
        height=360,
        xaxis={"showgrid": False, "range": [-0.5, shape[1] - 0.5]},
        yaxis={"showgrid": False, "range": [shape[0] - 0.5, -0.5]},
    )
    first_row = table.iloc[0]
    top = np.unravel_index(int(positions.values.argmax()), positions.values.shape)
    at = f"row {top[0] * positions.row_step}, column {top[1] * positions.step * positions.length}"
    answer = (
        f"{_format_codes(codes).capitalize()}: {first_row['count']:,} vectors, "
        f"{themes.format_percent(float(first_row['share']))} of all, "
        f"most densely near {at}; each cell covers {positions.row_step} × {positions.step} vectors."
    )
    rows = pd.DataFrame(positions.values).stack().rename("share").reset_index()
    rows.columns = pd.Index(["first row", "column", "share"])
    rows = rows[rows["share"] > 0].assign(
        **{
            "first row": lambda t: t["first row"] * positions.row_step,
            "column": lambda t: t["column"] * positions.step * positions.length,
        }
    )
    return Figure("Where do these codes occur?", answer, {"data": [trace], "layout": layout}, rows)


def draw_code_errors(table: pd.DataFrame, bins: pd.DataFrame, codes: Sequence[int], *, theme: Theme = themes.LIGHT) -> Figure:
    """How the weights under chosen codes are served beside all others (`method.codewords.error_profile`)."""
    middle = ((bins["from"] + bins["to"]) / 2).tolist()
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "line": {"shape": "hvh", "color": color, "width": 2},
            "fill": "tozeroy" if column == "others" else "none",
            "x": middle,
            "y": bins[column].tolist(),
            "name": name,
            "hovertemplate": f"{name}: %{{y:.1%}} of the vectors near %{{x:.3g}}<extra></extra>",
        }
        for column, name, color in (("others", "all others", theme.original), ("chosen", "chosen codes", theme.accent))
    ]
    layout = themes.build_layout(
        theme,
        x="relative error of a vector",
        y="share of the vectors",
        height=300,
        yaxis={"tickformat": ".0%", "rangemode": "tozero"},
    )
    chosen, other = table.iloc[0], table.iloc[1]
    answer = (
        f"The weights coded by {_format_codes(codes)} lose {themes.format_percent(float(chosen['served']))} of their energy, all "
        f"others {themes.format_percent(float(other['served']))}; "
        f"{themes.format_percent(float(chosen['error_share']))} of the layer's error comes from them."
        if chosen["count"]
        else f"No vector uses {_format_codes(codes)}, so it neither adds nor avoids any error."
    )
    return Figure("How well do these codes fit their weights?", answer, {"data": data, "layout": layout}, table)


def _format_codes(codes: Sequence[int]) -> str:
    """Codes by number, the first few of many."""
    text = ", ".join(map(str, codes[:LISTED])) + (", …" if len(codes) > LISTED else "")
    return f"code {text}" if len(codes) == 1 else f"codes {text}"


def draw_edit_effect(table: pd.DataFrame, summary: str, moved: int, *, theme: Theme = themes.LIGHT) -> Figure:
    """An edit that moved so many vectors: figure, before, after and difference, drawn in per cent of what was before."""
    share = [
        100 * change / before if before else 0.0 for before, change in zip(table["before"], table["difference"], strict=True)
    ]
    trace = {
        "type": "bar",
        "orientation": "h",
        "y": table["figure"].tolist(),
        "x": share,
        "marker": {"color": [theme.quantized if value > 0 else theme.original for value in share]},
        "text": [f"{value:+.3g} %" for value in share],
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": "%{y}: %{x:+.3g} %<extra></extra>",
    }
    widest = max(map(abs, share)) or 1.0
    layout = themes.build_layout(
        theme,
        x="relative change in per cent",
        height=110 + 44 * len(table),
        xaxis={"range": [-1.4 * widest, 1.4 * widest], "zeroline": True, "zerolinecolor": theme.muted},
        yaxis={"autorange": "reversed", "type": "category", "showgrid": False},
    )
    answer = _describe_edit_effect(table, summary, moved)
    return Figure("What if this codeword changed?", answer, {"data": [trace], "layout": layout}, table)


def _describe_edit_effect(table: pd.DataFrame, summary: str, moved: int) -> str:
    """What was tried, and every figure before and after."""
    lines = zip(table["figure"], table["before"], table["after"], table["interval"], strict=True)
    written = "; ".join(
        f"{name} {before:.4g} → {after:.4g}{f' ({interval})' if interval else ''}" for name, before, after, interval in lines
    )
    return f"With {summary}, {themes.format_count(moved, 'vector')} moved: {written}. Nothing is changed until Apply is pressed."
