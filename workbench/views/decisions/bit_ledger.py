"""The bit ledger: where every stored bit of a layer or model goes, compared with the nominal figure in the method's paper."""

from typing import Any

import pandas as pd

from workbench.analysis.decisions.bit_ledger import OnDisk, strip_item_path
from workbench.bits import BitLedger
from workbench.quantized import format_percent
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme


def draw_bit_ledger(
    ledger: BitLedger, *, scope: str = "this layer", coverage: float | None = None, theme: Theme = themes.LIGHT
) -> Figure:
    """Draw where every stored bit goes: two bars in bits per weight, the stored one stacked by item, and the nominal one.

    Args:
        ledger: The ledger of a layer or a model: `wb.quantize(...).ledger`, `wb.quantize_model(...).ledger`.
        scope: What it is the ledger of, for the sentence.
        coverage: The share of the model's weights that it counts, 0 to 1 (`QuantizedModel.coverage`).
        theme: The colours, light ones when absent.

    Returns:
        The figure.

    Example:
        >>> import workbench as wb
        >>> result = wb.quantize(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", wb.recipe("rtn", bits=2))
        >>> wb.figures.bit_ledger(result.ledger).answer
        'This layer stores 2.14 bits per weight (2.00 nominal), 52.6 kB: 93.4 % is uniform codes, 5.84 % uniform scale.'
    """
    table = label_ledger_items(ledger.table())
    traces: list[dict[str, Any]] = [_build_item_bar(line, index) for index, line in enumerate(table.to_dict("records"))]
    nominal = {
        "type": "bar",
        "orientation": "h",
        "x": [ledger.nominal_bits],
        "y": ["nominal"],
        "name": "as the paper counts",
        "marker": {"color": "rgba(0,0,0,0)", "line": {"color": theme.muted, "width": 2}},
        "hovertemplate": "nominal %{x:.3f} bits per weight<extra></extra>",
    }
    totals = [("stored", ledger.bits_per_weight), ("nominal", ledger.nominal_bits)]
    note = {"showarrow": False, "xanchor": "left", "xshift": 8, "font": {"size": 14, "color": theme.text}}
    plot = {
        "data": [*traces, nominal],
        "layout": themes.build_layout(
            theme,
            x="bits per weight",
            height=260 + 22 * (len(traces) // 4),
            barmode="stack",
            bargap=0.35,
            xaxis={"rangemode": "tozero", "range": [0, 1.3 * max(value for _, value in totals) or 1.0]},
            yaxis={"type": "category", "categoryorder": "array", "categoryarray": ["nominal", "stored"], "showgrid": False},
            legend={"traceorder": "normal"},
            annotations=[note | {"x": value, "y": name, "text": f"{themes.format_bits(value)} bits"} for name, value in totals],
        ),
    }
    return Figure("Where does every stored bit go?", _describe_bit_ledger(ledger, table, scope, coverage), plot, table)


def _build_item_bar(line: dict[str, Any], index: int) -> dict[str, Any]:
    """One stored item as its part of the stored bar."""
    return {
        "type": "bar",
        "orientation": "h",
        "x": [line["bits_per_weight"]],
        "y": ["stored"],
        "name": line["item"],
        "marker": {"color": themes.CATEGORIES[index % len(themes.CATEGORIES)]},
        "customdata": [[line["why"], themes.format_percent(line["share"]), themes.format_megabytes(line["bits"])]],
        "hovertemplate": f"<b>{line['item']}</b> %{{x:.3f}} bits per weight<br>"
        "%{customdata[1]} of all stored bits, %{customdata[2]}<br>%{customdata[0]}<extra></extra>",
    }


def label_ledger_items(table: pd.DataFrame) -> pd.DataFrame:
    """The ledger's table with items as people say them: `0.1.uniform codes` is `uniform codes`, the second `uniform codes 2`."""
    counts: dict[str, int] = {}
    items = []
    for item in table["item"]:
        name = _format_item_name(item)
        counts[name] = counts.get(name, 0) + 1
        items.append(name if counts[name] == 1 else f"{name} {counts[name]}")
    return table.assign(item=items)


def _format_item_name(item: str) -> str:
    """An item as people say it."""
    return strip_item_path(item).replace("_", " ")


def _describe_bit_ledger(ledger: BitLedger, table: pd.DataFrame, scope: str, coverage: float | None = None) -> str:
    """Stored against nominal, and what makes the difference."""
    stored, nominal = ledger.bits_per_weight, ledger.nominal_bits
    largest = table.sort_values("bits", ascending=False)
    who, size = f"{scope[0].upper()}{scope[1:]}", themes.format_megabytes(ledger.total_bits)
    text = f"{who} stores {themes.format_bits(stored)} bits per weight ({themes.format_bits(nominal)} nominal)"
    text += f", {size}" if coverage is None else f" in {format_percent(coverage)} of the model's weights, {size}"
    if len(largest) < 2:
        return f"{text}, all of it {largest.iloc[0]['item']}." if len(largest) else f"{text}."
    first, second = largest.iloc[0], largest.iloc[1]
    return (
        f"{text}: {themes.format_percent(first['share'])} is {first['item']}, "
        f"{themes.format_percent(second['share'])} {second['item']}."
    )


def draw_icicle(tree: pd.DataFrame, weights: int, *, scope: str = "this layer", theme: Theme = themes.LIGHT) -> Figure:
    """Everything that is stored, from the whole to single items (`bit_ledger.tree`); areas are bits, a click goes deeper."""
    items = _select_leaves(tree)
    # only items are spelled anew: the names of layers and blocks are names
    labels = [
        _format_item_name(label) if row_id in set(items["id"]) else label
        for row_id, label in zip(tree["id"], tree["label"], strict=True)
    ]
    kinds = {name: i for i, name in enumerate(dict.fromkeys(_format_item_name(label) for label in items["label"]))}
    colors = [themes.CATEGORIES[kinds[name] % len(themes.CATEGORIES)] if name in kinds else theme.raised for name in labels]
    trace = {
        "type": "icicle",
        "ids": [row_id or "all" for row_id in tree["id"]],
        "parents": ["" if not row_id else parent or "all" for row_id, parent in zip(tree["id"], tree["parent"], strict=True)],
        "labels": labels,
        "values": tree["bits"].tolist(),
        "branchvalues": "total",
        "tiling": {"orientation": "v"},
        "marker": {"colors": colors, "line": {"color": theme.surface, "width": 1}},
        "maxdepth": 3,
        "customdata": [
            [themes.format_megabytes(bits), bits / weights, themes.format_percent(share)]
            for bits, share in zip(tree["bits"], tree["share"], strict=True)
        ],
        "hovertemplate": "<b>%{label}</b><br>%{customdata[0]}, %{customdata[1]:.3f} bits per weight, "
        "%{customdata[2]}<extra></extra>",
    }
    layout = themes.build_layout(
        theme, height=340, margin={"l": 4, "r": 4, "t": 24, "b": 4}, uniformtext={"minsize": 11, "mode": "hide"}
    )
    plot = {"data": [trace], "layout": layout}
    table = tree.assign(label=labels).drop(columns=["id", "parent"])
    return Figure(f"What is stored for {scope}?", _describe_icicle(tree), plot, table)


def _select_leaves(tree: pd.DataFrame) -> pd.DataFrame:
    """The items themselves: rows that are nobody's parent."""
    return tree[~tree["id"].isin(set(tree["parent"])) & (tree["id"] != "")]


def _describe_icicle(tree: pd.DataFrame) -> str:
    """The largest kind of item, and the largest part below the whole."""
    kinds = _select_leaves(tree).groupby("label", sort=False)["share"].sum().sort_values(ascending=False)
    parts = tree[(tree["parent"] == "") & (tree["id"] != "")].sort_values("bits", ascending=False)
    text = f"{themes.format_percent(float(kinds.iloc[0]))} of all bits are {_format_item_name(kinds.index[0])}"
    if len(parts) < 2 or set(parts["label"]) == set(kinds.index):
        return f"{text}; {themes.format_count(len(kinds), 'kind of item', 'kinds of items')} in all."
    first = parts.iloc[0]
    return f"{text}; the largest part is {_format_item_name(first['label'])} with {themes.format_percent(float(first['share']))}."


def draw_bits_waterfall(bridge: pd.DataFrame, *, scope: str = "this layer", theme: Theme = themes.LIGHT) -> Figure:
    """From the nominal figure to the stored one, item by item (`decisions.bit_ledger.bridge`)."""
    names = [_format_item_name(item) for item in bridge["item"]]
    values = bridge["bits_per_weight"].tolist()
    trace = {
        "type": "waterfall",
        "x": names,
        "y": values,
        "measure": ["absolute", *["relative"] * (len(values) - 2), "total"],
        "text": [format_bit_difference(value) for value in values],
        "textposition": "outside",
        "increasing": {"marker": {"color": theme.quantized}},
        "decreasing": {"marker": {"color": theme.original}},
        "totals": {"marker": {"color": theme.muted}},
        "connector": {"line": {"color": theme.border}},
        "cliponaxis": False,
        "hovertemplate": "%{x}: %{y:.4f} bits per weight<extra></extra>",
    }
    layout = themes.build_layout(
        theme, y="bits per weight", height=360, xaxis={"type": "category", "showgrid": False}, showlegend=False
    )
    table = bridge.assign(item=names)
    return Figure(
        "Why is more stored than the nominal figure says?",
        _describe_bits_waterfall(table, scope),
        {"data": [trace], "layout": layout},
        table,
    )


def format_bit_difference(value: float) -> str:
    """A part of the stored bits: two decimals, or one digit of what is less than a hundredth."""
    return themes.format_bits(value) if abs(value) >= 0.01 or value == 0 else f"{value:.1g}"


def _describe_bits_waterfall(table: pd.DataFrame, scope: str) -> str:
    """The difference and its largest reason."""
    nominal, stored = table["bits_per_weight"].iloc[0], table["bits_per_weight"].iloc[-1]
    between = table.iloc[1:-1]
    who = f"{scope[0].upper()}{scope[1:]}"
    if between.empty:
        return f"{who} stores exactly the nominal {themes.format_bits(stored)} bits per weight."
    first = between.loc[between["bits_per_weight"].abs().idxmax()]
    return (
        f"{who} stores {themes.format_bits(stored)} bits per weight, nominally {themes.format_bits(nominal)}; most of the "
        f"difference of {format_bit_difference(stored - nominal)} is {first['item']}: "
        f"{format_bit_difference(first['bits_per_weight'])} ({first['why']})."
    )


def describe_size_on_disk(disk: OnDisk) -> str:
    """The ledger against a file, in bytes."""
    file, ledger = f"{disk.file:,}", f"{disk.ledger:,.0f}"
    if disk.agree:
        return f"On disk, {disk.what} takes {file} bytes; the ledger adds up to the same {ledger}."
    return f"On disk, {disk.what} takes {file} bytes, but the ledger adds up to {ledger}. Please report this as a bug."
