"""The four key figures of a model: stored bits, size, perplexity and speed."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.analysis.decisions.headline import Headline, Stored
from workbench.intervals import format_interval
from workbench.models.perplexity import PerplexityRatio
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
    nominal = f"{themes.format_bits(stored.nominal_bits)} nominal{share}"
    beneath = f"stored as {stored.stored_as}" if stored.stored_as else nominal
    bits = Number("stored bits per weight", themes.format_bits(stored.bits_per_weight), beneath)
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


def list_differences(stored: Stored, beside: Stored, ratio: PerplexityRatio | None) -> list[tuple[str, bool]]:
    """What is different from the run beside it, a text for each of the four figures and whether it is more; "" where unknown."""
    bits = stored.bits_per_weight - beside.bits_per_weight
    rows = [(f"{bits:+.2f}".replace("-", "−"), bits > 0), _compare_sizes(stored.bytes, beside.bytes)]
    if ratio is None:
        rows.append(("", False))
    else:
        interval = "no interval" if ratio.interval is None else "{:.3g} to {:.3g}".format(*ratio.interval)
        rows.append((f"{ratio.ratio:.3g} × ({interval})", ratio.ratio > 1))
    shown_speed, beside_speed = (getattr(figures, "fastest", None) for figures in (stored, beside))
    if shown_speed is None or beside_speed is None:
        rows.append(("", False))
    else:
        rows.append(_compare_sizes(shown_speed, beside_speed))
    return rows


def _compare_sizes(shown: float, beside: float) -> tuple[str, bool]:
    """How many times one size is the other, and whether it is larger."""
    return f"{shown / beside:.2g} ×", shown > beside


def describe_paired_ratio(ratio: PerplexityRatio | None, label: str) -> str:
    """The perplexity beside another run's in a sentence; empty where one of them was not measured."""
    if ratio is None:
        return ""
    unpaired = (
        " The two were not read document by document here, so there is no paired interval." if ratio.interval is None else ""
    )
    return f"Its perplexity is {ratio.against(label)}.{unpaired}"


def describe_insignificance(ratio: PerplexityRatio) -> str:
    """That two perplexities cannot be told apart, where that is so; their ratio stands below the figure."""
    if ratio.clear or ratio.interval is None:
        return ""
    return f"Perplexity: no significant difference on {ratio.tokens:,} tokens."


def render_headline(
    stored: Stored, theme: Theme, differences: Sequence[tuple[str, bool]] = (), sentence: str | None = None
) -> str:
    """The four figures beside each other, the differences from another run below them, and a sentence, by default that on the
    original."""
    less, more = (themes.DIVERGING[0][1], theme.action) if theme.name == "light" else (themes.DIVERGING[1][1], theme.action)
    numbers = list_headline_numbers(stored)
    texts = list(differences) or [("", False)] * len(numbers)
    cells = "".join(
        f"<div><dt style='color:{theme.muted};font-size:0.75rem'>{html.escape(number.label)}</dt>"
        f"<dd style='margin:0;font-size:1.05rem;font-weight:600'>{html.escape(number.value)}</dd>"
        f"<dd style='margin:0;color:{theme.muted};font-size:0.75rem'>{html.escape(number.beneath)}</dd>"
        + (f"<dd style='margin:0;color:{more if is_more else less};font-size:0.8rem'>{html.escape(text)}</dd>" if text else "")
        + "</div>"
        for number, (text, is_more) in zip(numbers, texts, strict=True)
    )
    words = describe_perplexity_ratio(stored) if sentence is None else sentence
    paragraph = f"<p style='margin:2px 0;font-size:0.8rem'>{html.escape(words)}</p>"
    figures = (
        f"<dl style='display:grid;grid-template-columns:repeat(auto-fit,minmax(8rem,1fr));gap:4px 10px;margin:0'>{cells}</dl>"
    )
    return f"<div aria-live='polite'>{figures}{paragraph}</div>"
