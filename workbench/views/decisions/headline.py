"""The four key figures of a model: stored bits, size, perplexity and speed."""

import html
from dataclasses import dataclass

from workbench.analysis.decisions.headline import Headline, Stored
from workbench.intervals import format_interval
from workbench.quantized import format_percent
from workbench.views import theme as themes
from workbench.views.theme import Theme


@dataclass(frozen=True)
class Number:
    """One figure of a model: what it is, its value, and what stands smaller beneath."""

    label: str
    value: str
    beneath: str


def list_headline_numbers(stored: Stored) -> list[Number]:
    """Stored bits, size, perplexity and speed; dashes for what was not measured yet."""
    share = "" if stored.coverage is None else f" in {format_percent(stored.coverage)}"
    bits = Number(
        "stored bits per weight",
        themes.format_bits(stored.bits_per_weight),
        f"{themes.format_bits(stored.nominal_bits)} nominal{share}",
    )
    size = themes.format_megabytes(8 * stored.bytes)
    if not isinstance(stored, Headline):
        waiting = [Number(label, "–", "not measured yet") for label in ("perplexity", "speed on this machine")]
        return [bits, Number("size on disk", size, "all tensors"), *waiting]
    speed = Number("speed on this machine", "–", "not measured yet")
    if stored.fastest is not None and stored.tokens_per_second is not None:
        speed = Number(
            "speed on this machine", themes.format_speed(stored.fastest), f"best of 3, median {stored.tokens_per_second:.0f}"
        )
    limits = None
    if stored.perplexity_low is not None and stored.perplexity_high is not None:
        limits = (stored.perplexity_low, stored.perplexity_high)
    return [
        bits,
        Number("size on disk", size, f"{themes.format_megabytes(8 * stored.resident_bytes)} in memory"),
        Number("perplexity", f"{stored.perplexity:.2f}", format_interval(limits, stored.text_tokens, ".2f")),
        speed,
    ]


def describe_perplexity_ratio(stored: Stored) -> str:
    """The perplexity beside the original's in one sentence, paired document by document; empty where there is none to compare."""
    if not isinstance(stored, Headline) or stored.ratio == 1:
        return ""
    return f"Its perplexity is {stored.times.against('the original')}."


def render_headline(stored: Stored, theme: Theme) -> str:
    """The four figures beside each other, and the sentence below them."""
    cells = "".join(
        f"<div style='min-width:96px'><dt style='color:{theme.muted};font-size:0.75rem'>{html.escape(number.label)}</dt>"
        f"<dd style='margin:0;font-size:1.25rem;font-weight:600'>{html.escape(number.value)}</dd>"
        f"<dd style='margin:0;color:{theme.muted};font-size:0.75rem'>{html.escape(number.beneath)}</dd></div>"
        for number in list_headline_numbers(stored)
    )
    sentence = f"<p style='margin:2px 0;font-size:0.8rem'>{html.escape(describe_perplexity_ratio(stored))}</p>"
    figures = f"<dl style='display:flex;flex-wrap:wrap;gap:4px 18px;margin:0'>{cells}</dl>"
    return f"<div aria-live='polite'>{figures}{sentence}</div>"
