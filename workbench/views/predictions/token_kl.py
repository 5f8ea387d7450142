"""A text with every token tinted by how far the prediction of it moved."""

import html
from dataclasses import dataclass

import pandas as pd

from workbench.analysis.predictions.divergence import Divergence
from workbench.analysis.predictions.sensitivity import above
from workbench.intervals import ends, written
from workbench.views import theme as themes
from workbench.views.predictions.kl_tint import legend, tint
from workbench.views.theme import Theme

SHOWN = 400  # tokens; more are only in the table
COLUMNS = ["document", "token", "kl", "top1_changed"]


@dataclass(frozen=True)
class TintedText:
    """`text` is HTML, `table` its twin: document, token, kl and top1_changed (0 or 1) of every scored token."""

    question: str
    answer: str
    text: str
    table: pd.DataFrame


def tinted(tokens: pd.DataFrame, effect: Divergence, floor: float, *, theme: Theme = themes.LIGHT) -> TintedText:
    """The first tokens, tinted by their KL on the scale of all texts, underlined where the likeliest token changed.

    `tokens` is `effect.table(decode)`, `floor` the KL of half precision.
    """
    table = tokens.assign(top1_changed=(tokens["top1"] != tokens["top1_original"]).astype(int))[COLUMNS]
    parts = [piece(row, theme) for row in table.head(SHOWN).to_dict("records")]
    low, _ = ends(effect.kl_interval)
    noise = "" if above(effect.kl, low, floor) else " Smaller than the rounding noise of half precision: no measurable effect."
    moved = int(table["top1_changed"].sum())
    answer = (
        f"KL {themes.error(effect.kl)} ({written(effect.kl_interval, effect.tokens)}) nats per token, "
        f"median {themes.error(effect.kl_median)}; perplexity {effect.perplexity_original:.3f} → {effect.perplexity:.3f}, "
        f"{effect.ratio.against('the original')}; the likeliest token changed at {moved:,} of "
        f"{themes.count(effect.tokens, 'token')} ({themes.percent(effect.top1_changed)}) of {effect.text}.{noise} "
        f"{themes.over_texts(effect.documents)}"
    )
    body = "".join(parts)
    page = f"<p style='white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.9;font-size:1rem;margin:4px 0'>{body}</p>"
    page = legend(theme) + page
    return TintedText("What does this change of this layer do to the model?", answer, page, table)


def piece(row: dict, theme: Theme) -> str:
    """One token."""
    line = f"border-bottom:2px solid {theme.accent};" if row["top1_changed"] else ""
    style = f"background:{tint(row['kl'], theme)};{line}"
    tooltip = f"KL {row['kl']:.3g}" + (", likeliest token changed" if row["top1_changed"] else "")
    return f'<span style="{style}" title="{tooltip}">{html.escape(row["token"]) or "·"}</span>'
