"""A text with every token coloured by how much its prediction changed."""

import html
from dataclasses import dataclass

import pandas as pd

from workbench.analysis.predictions.divergence import Divergence
from workbench.analysis.predictions.sensitivity import is_above_noise
from workbench.intervals import format_interval, split_interval
from workbench.views import theme as themes
from workbench.views.predictions.kl_tint import compute_kl_tint, render_tint_legend
from workbench.views.theme import Theme

MAX_TOKENS = 400  # tokens; more are only in the table
TOKEN_COLUMNS = ["document", "token", "kl", "top1_changed"]


@dataclass(frozen=True)
class TintedText:
    """`text` is HTML, `table` its twin: document, token, kl and top1_changed (0 or 1) of every scored token."""

    question: str
    answer: str
    text: str
    table: pd.DataFrame


def build_tinted_text(tokens: pd.DataFrame, effect: Divergence, floor: float, *, theme: Theme = themes.LIGHT) -> TintedText:
    """The first tokens, tinted by their KL on the scale of all texts, underlined where the likeliest token changed.

    `tokens` is `effect.table(decode)`, `floor` the KL of half precision.
    """
    table = tokens.assign(top1_changed=(tokens["top1"] != tokens["top1_original"]).astype(int))[TOKEN_COLUMNS]
    parts = [_render_tinted_token(row, theme) for row in table.head(MAX_TOKENS).to_dict("records")]
    low, _ = split_interval(effect.kl_interval)
    noise = (
        ""
        if is_above_noise(effect.kl, low, floor)
        else " Smaller than the rounding noise of half precision: no measurable effect."
    )
    moved = int(table["top1_changed"].sum())
    answer = (
        f"KL {themes.format_error(effect.kl)} ({format_interval(effect.kl_interval, effect.tokens)}) nats per token, "
        f"median {themes.format_error(effect.kl_median)}; perplexity {effect.perplexity_original:.3f} → {effect.perplexity:.3f}, "
        f"{effect.ratio.against('the original')}; the top-1 token changed at {moved:,} of "
        f"{themes.format_count(effect.tokens, 'token')} ({themes.format_percent(effect.top1_changed)}) of {effect.text}.{noise} "
        f"{themes.describe_interval_basis(effect.documents)}"
    )
    body = "".join(parts)
    page = f"<p style='white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.9;font-size:1rem;margin:4px 0'>{body}</p>"
    page = render_tint_legend(theme) + page
    return TintedText("How does quantizing this layer change the model?", answer, page, table)


def _render_tinted_token(row: dict, theme: Theme) -> str:
    """One token."""
    line = f"border-bottom:2px solid {theme.accent};" if row["top1_changed"] else ""
    style = f"background:{compute_kl_tint(row['kl'], theme)};{line}"
    tooltip = f"KL {row['kl']:.3g}" + (", top-1 token changed" if row["top1_changed"] else "")
    return f'<span style="{style}" title="{tooltip}">{html.escape(row["token"]) or "·"}</span>'
