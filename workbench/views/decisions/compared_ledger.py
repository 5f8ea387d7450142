"""The stored bits of two runs, item by item, beside each other."""

import pandas as pd

from workbench.bits import BitLedger
from workbench.views import theme as themes
from workbench.views.decisions.bit_ledger import format_bit_difference, label_ledger_items
from workbench.views.figure import Figure
from workbench.views.theme import Theme


def tabulate_compared_ledgers(beside: BitLedger, shown: BitLedger) -> pd.DataFrame:
    """One row an item that one of them stores: item, bits_beside, bits_shown, bits_difference, in bits per weight."""
    tables = [label_ledger_items(ledger.table()).set_index("item")["bits_per_weight"] for ledger in (beside, shown)]
    table = pd.DataFrame({"bits_beside": tables[0], "bits_shown": tables[1]}).fillna(0.0)
    items = list(dict.fromkeys([*tables[1].index, *tables[0].index]))
    table = table.loc[items].rename_axis("item").reset_index()
    return table.assign(bits_difference=table["bits_shown"] - table["bits_beside"])


def draw_compared_ledgers(
    beside: BitLedger, shown: BitLedger, labels: tuple[str, str], *, scope: str = "this layer", theme: Theme = themes.LIGHT
) -> Figure:
    """Two stacked bars in bits per weight, one colour an item; `labels` are what the two runs are called."""
    table = tabulate_compared_ledgers(beside, shown)
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "x": [line["bits_beside"], line["bits_shown"]],
            "y": list(labels),
            "name": line["item"],
            "marker": {"color": themes.CATEGORIES[index % len(themes.CATEGORIES)]},
            "hovertemplate": f"<b>{line['item']}</b> %{{x:.3f}} bits per weight<extra></extra>",
        }
        for index, line in enumerate(table.to_dict("records"))
    ]
    totals = (beside.bits_per_weight, shown.bits_per_weight)
    note = {"showarrow": False, "xanchor": "left", "xshift": 8, "font": {"size": 14, "color": theme.text}}
    layout = themes.build_layout(
        theme,
        x="bits per weight",
        height=260 + 22 * (len(traces) // 4),
        barmode="stack",
        bargap=0.35,
        xaxis={"rangemode": "tozero", "range": [0, 1.3 * max(totals) or 1.0]},
        yaxis={"type": "category", "categoryorder": "array", "categoryarray": list(labels), "showgrid": False},
        legend={"traceorder": "normal"},
        annotations=[
            note | {"x": value, "y": label, "text": f"{themes.format_bits(value)} bits"}
            for label, value in zip(labels, totals, strict=True)
        ],
    )
    return Figure("Which run stores what?", _describe(table, totals, labels, scope), {"data": traces, "layout": layout}, table)


def _describe(table: pd.DataFrame, totals: tuple[float, float], labels: tuple[str, str], scope: str) -> str:
    """Both sums, and the item that makes most of the difference."""
    difference = totals[1] - totals[0]
    text = (
        f"Of {scope}, “{labels[1]}” stores {themes.format_bits(totals[1])} bits per weight and “{labels[0]}” "
        f"{themes.format_bits(totals[0])}"
    )
    if not table["bits_difference"].abs().max() > 0:
        return f"{text}: the same, item by item."
    first = table.loc[table["bits_difference"].abs().idxmax()]
    signs = {part: format_bit_difference(part).replace("-", "−") for part in (difference, first["bits_difference"])}
    return f"{text}: a difference of {signs[difference]}; {first['item']} alone makes {signs[first['bits_difference']]}."
