"""The bit ledger: where every stored bit of a layer or model goes, beside the nominal figure of the method's paper."""

from typing import Any

import pandas as pd

from workbench.bits import BitLedger
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.theme import Theme


def bars(ledger: BitLedger, *, scope: str = "this layer", theme: Theme = themes.LIGHT) -> Figure:
    """Two bars in bits per weight: stored, stacked by item, and nominal."""
    table = readable(ledger.table())
    traces: list[dict[str, Any]] = [segment(line, index) for index, line in enumerate(table.to_dict("records"))]
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
        "layout": themes.layout(
            theme,
            x="bits per weight",
            height=260 + 22 * (len(traces) // 4),
            barmode="stack",
            bargap=0.35,
            xaxis={"rangemode": "tozero", "range": [0, 1.15 * max(value for _, value in totals) or 1.0]},
            yaxis={"type": "category", "categoryorder": "array", "categoryarray": ["nominal", "stored"], "showgrid": False},
            legend={"traceorder": "normal"},
            annotations=[note | {"x": value, "y": name, "text": f"{themes.bits(value)} bits"} for name, value in totals],
        ),
    }
    return Figure("Where does every stored bit go?", sentence(ledger, table, scope), plot, table)


def segment(line: dict[str, Any], index: int) -> dict[str, Any]:
    """One stored item as its part of the stored bar."""
    return {
        "type": "bar",
        "orientation": "h",
        "x": [line["bits_per_weight"]],
        "y": ["stored"],
        "name": line["item"],
        "marker": {"color": themes.CATEGORIES[index % len(themes.CATEGORIES)]},
        "customdata": [[line["why"], themes.percent(line["share"]), themes.megabytes(line["bits"])]],
        "hovertemplate": f"<b>{line['item']}</b> %{{x:.3f}} bits per weight<br>"
        "%{customdata[1]} of what is stored, %{customdata[2]}<br>%{customdata[0]}<extra></extra>",
    }


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """The ledger's table with items as people say them: `0.1.uniform codes` is `uniform codes`, the second `uniform codes 2`."""
    seen: dict[str, int] = {}
    items = []
    for item in table["item"]:
        plain = item.lstrip("0123456789.").replace("_", " ")
        seen[plain] = seen.get(plain, 0) + 1
        items.append(plain if seen[plain] == 1 else f"{plain} {seen[plain]}")
    return table.assign(item=items)


def sentence(ledger: BitLedger, table: pd.DataFrame, scope: str) -> str:
    """Stored against nominal, and what makes the difference."""
    stored, nominal = ledger.bits_per_weight, ledger.nominal_bits
    largest = table.sort_values("bits", ascending=False)
    who, size = f"{scope[0].upper()}{scope[1:]}", themes.megabytes(ledger.total_bits)
    text = f"{who} stores {themes.bits(stored)} bits per weight ({themes.bits(nominal)} nominal), {size}"
    if len(largest) < 2:
        return f"{text}: all of it {largest.iloc[0]['item']}." if len(largest) else f"{text}."
    first, second = largest.iloc[0], largest.iloc[1]
    return f"{text}: {themes.percent(first['share'])} is {first['item']}, {themes.percent(second['share'])} {second['item']}."
