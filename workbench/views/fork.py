"""Where a quantized model goes its own way, and which layer led it there."""

import pandas as pd

from workbench.analysis.fork import Recovery
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.text import shown
from workbench.views.theme import Theme

WORST = 12


def along(table: pd.DataFrame, fork: int | None, *, theme: Theme = themes.LIGHT) -> Figure:
    """KL of every token of the original's text; `table` is `ForkFinder.table`."""
    colours = [theme.accent if position == fork else theme.quantized for position in table["position"]]
    bars = {
        "type": "bar",
        "x": table["position"].tolist(),
        "y": table["kl"].tolist(),
        "text": [token.replace("\n", "↵") for token in table["token"]],
        "textposition": "none",
        "customdata": [token.replace("\n", "↵") for token in table["chosen"]],
        "marker": {"color": colours},
        "name": "KL",
        "hovertemplate": "token %{x}: “%{text}”, quantized writes “%{customdata}”<br>KL %{y:.3g}<extra></extra>",
    }
    layout = themes.layout(theme, x="token after the prompt", y="KL, nats", height=260, bargap=0.1)
    if fork is None:
        answer = f"Nowhere: both write the same {themes.count(len(table), 'token')}."
    else:
        row = table.iloc[fork - 1]
        answer = (
            f"At token {fork}: the original writes {shown(row['token'])}, the quantized model {shown(row['chosen'])}, at a KL of "
            f"{themes.error(row['kl'])} nats (median of all: {themes.error(table['kl'].median())})."
        )
    return Figure("Where do they part?", answer, {"data": [bars], "layout": layout}, table)


def blame(table: pd.DataFrame, fork: int, moved: int | None, *, theme: Theme = themes.LIGHT) -> Figure:
    """The layers whose full precision gives the original token most; `moved` is the fork with the first of them restored."""
    worst = table.head(WORST).iloc[::-1]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": worst["lead_gain"].tolist(),
        "y": worst["name"].tolist(),
        "marker": {"color": [theme.quantized if holds else theme.border for holds in worst["holds"]]},
        "customdata": worst[["lead_restored", "kl_alone"]].to_numpy().tolist(),
        "hovertemplate": "%{y}<br>wins back %{x:.3g} nats, lead then %{customdata[0]:.3g}<extra></extra>",
    }
    layout = themes.layout(theme, x="lead won back by restoring the layer, nats", height=120 + 22 * len(worst))
    first = table.iloc[0]
    after = {None: "removes the fork", fork: "does not move the fork"}.get(moved, f"moves the fork to token {moved}")
    alone = int(table["holds"].sum())
    answer = (
        f"{first['name']}: restoring it to full precision wins back {themes.error(first['lead_gain'])} nats and {after}. "
        f"{alone} of {themes.count(len(table), 'layer')} would do alone (orange)."
    )
    return Figure("Which layer is to blame?", answer, {"data": [bars], "layout": layout}, table)


def recovery(found: Recovery) -> str:
    """What a forced token brings, as a sentence."""
    return (
        f"With the original's token forced at the fork, {themes.percent(found.forced)} of {found.continuations} continuations of "
        f"{found.tokens} tokens read as likely to the original as its own; with the quantized model's token "
        f"{themes.percent(found.left)} (seeds from {found.seed})."
    )
