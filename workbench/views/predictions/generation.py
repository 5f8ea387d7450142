"""Two texts from one prompt: the first differing token marked, every token tinted by how much the models disagree there."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from workbench.analysis.predictions.generation import Writing, WrittenToken, tabulate_candidates
from workbench.analysis.predictions.generation_speed import Running
from workbench.views import theme as themes
from workbench.views.figure import Figure
from workbench.views.predictions.kl_tint import compute_kl_tint
from workbench.views.theme import Theme
from workbench.views.token_text import quote_token

TEXT_QUESTION = "Does it still write the same?"
ORIGINAL, QUANTIZED = "original", "quantized"


@dataclass(frozen=True)
class Comparison:
    """`original` and `quantized` are HTML with the classes `prompt`, `fork` and `chosen`; `table` is their twin."""

    question: str
    answer: str
    original: str
    quantized: str
    table: pd.DataFrame


def build_text_comparison(
    prompt: str,
    writing: Writing,
    chosen: int | None = None,
    *,
    choosable: bool = False,
    names: tuple[str, str] = ("the original", "the quantized text"),
    theme: Theme = themes.LIGHT,
) -> Comparison:
    """Both texts, called `names`; `chosen` is the place (from 0) of a token to outline in both. `choosable` makes every token a
    button."""
    write = render_token_buttons if choosable else _render_marked_text
    return Comparison(
        TEXT_QUESTION,
        describe_agreement(writing, names),
        write(prompt, writing.original, writing.fork, chosen, theme),
        write(prompt, writing.quantized, writing.fork, chosen, theme),
        _quote_tokens(writing.table()),
    )


def name_texts(beside: str, shown: str) -> tuple[str, str]:
    """What a sentence calls the two texts: by their runs, unless the first is the original."""
    return ("the original", "the quantized text") if beside == ORIGINAL else (f"“{beside}”", f"“{shown}”")


def _render_marked_text(prompt: str, tokens: Sequence[WrittenToken], fork: int | None, chosen: int | None, theme: Theme) -> str:
    """The prompt and every token in a tint of its KL; the fork and the chosen token stand out."""
    words = [_render_token(token, position == fork, position == chosen, theme) for position, token in enumerate(tokens)]
    return f'<span class="prompt">{html.escape(prompt)}</span>{"".join(words)}'


def render_token_buttons(prompt: str, tokens: Sequence[WrittenToken], fork: int | None, chosen: int | None, theme: Theme) -> str:
    """The same with every token as a button; the chosen one, or the fork, or the first is the one that Tab reaches."""
    last = len(tokens) - 1
    first = next((position for position in (chosen, fork) if position is not None and position <= last), 0)
    words = [_render_token_button(token, position, fork, chosen, first, theme) for position, token in enumerate(tokens)]
    return f'<span class="prompt">{html.escape(prompt)}</span>{"".join(words)}'


def _render_token_button(
    token: WrittenToken, position: int, fork: int | None, chosen: int | None, first: int, theme: Theme
) -> str:
    """One token as a button, on a new line where it holds a line break: a button cannot be broken inside."""
    visible = replace(token, text=token.text.replace("\n", "↵"))
    label = html.escape(f"token {position + 1}, {quote_token(token.text)}, KL {themes.format_error(token.kl)} nats", quote=True)
    state = f'aria-pressed="{str(position == chosen).lower()}" tabindex="{0 if position == first else -1}"'
    inside = _render_token(visible, position == fork, position == chosen, theme)
    breaks = "<br>" * token.text.count("\n")
    return f'{breaks}<button type="button" data-place="{position}" aria-label="{label}" {state}>{inside}</button>'


def _render_token(token: WrittenToken, is_fork: bool, is_chosen: bool, theme: Theme) -> str:
    """One token as HTML."""
    names = " ".join(name for name, applies in (("fork", is_fork), ("chosen", is_chosen)) if applies)
    tooltip = f"KL {themes.format_error(token.kl)} nats" + (", the first differing token" if is_fork else "")
    tag = "mark" if is_fork else "span"
    attributes = f' class="{names}"' if names else ""
    colour = "" if is_fork else f' style="background:{compute_kl_tint(token.kl, theme)}"'
    return f'<{tag}{attributes}{colour} title="{tooltip}">{html.escape(token.text)}</{tag}>'


def describe_agreement(writing: Writing, names: tuple[str, str] = ("the original", "the quantized text")) -> str:
    """How long the two agree, and on what they part."""
    a, b, at = writing.original, writing.quantized, writing.fork
    if not writing.done and at is None:
        return f"Writing: {themes.format_count(len(a), 'token')}, and both agree so far."
    if not a and not b:
        return "Both models end the text at once."
    if at is None:
        return f"All {themes.format_count(len(a), 'token')} agree; {_describe_largest_kl(writing)}."
    agree = "The very first token differs" if at == 0 else f"The first {themes.format_count(at, 'token')} agree"
    agree = "The first token agrees" if at == 1 else agree
    first, second = (quote_token(side[at].text) if at < len(side) else "the end" for side in (a, b))
    return f"{agree}; token {at + 1} is {first} in {names[0]} and {second} in {names[1]}."


def _describe_largest_kl(writing: Writing) -> str:
    """The largest KL over the original's text."""
    position = max(range(len(writing.original)), key=lambda i: writing.original[i].kl)
    token = writing.original[position]
    if token.kl == 0:
        return "both models predict exactly the same distribution at each of them"
    return f"the models disagree most at token {position + 1}, {quote_token(token.text)}: KL {themes.format_error(token.kl)} nats"


def _quote_tokens(table: pd.DataFrame) -> pd.DataFrame:
    """The table with tokens in quotes."""
    return table.assign(**{side: [quote_token(token) for token in table[side]] for side in (ORIGINAL, QUANTIZED)})


def draw_token_kl(writing: Writing, chosen: int | None = None, *, theme: Theme = themes.LIGHT) -> Figure:
    """KL at every token of both texts, each read by both models; `chosen` is outlined and the fork has a line."""
    table, fork = writing.table(), writing.fork
    edge = [theme.accent if position == chosen else "rgba(0,0,0,0)" for position in range(len(table))]
    traces: list[dict[str, Any]] = [
        {
            "type": "bar",
            "x": table["position"].tolist(),
            "y": [None if math.isnan(kl) else kl for kl in table[f"kl_{side}"]],
            "customdata": [quote_token(token) for token in table[side]],
            "name": f"{side} text",
            "marker": {"color": colour, "line": {"color": edge, "width": 2}},
            "hovertemplate": "token %{x} %{customdata}<br>KL %{y:.3g} nats<extra></extra>",
        }
        for side, colour in ((ORIGINAL, theme.original), (QUANTIZED, theme.quantized))
    ]
    plot = {
        "data": traces,
        "layout": themes.build_layout(
            theme,
            x="token after the prompt",
            y="KL, nats",
            height=240,
            bargap=0.2,
            yaxis={"rangemode": "tozero"},
            shapes=build_fork_line(None if fork is None else fork + 1, theme),
            showlegend=True,
        ),
    }
    where = (
        "" if fork is None else f"; after the dotted line, at token {fork + 1}, the texts differ and both models score each text"
    )
    average = table["kl_original"].mean()
    answer = (
        f"On the original's text the mean KL is {themes.format_error(average)} nats per token; "
        f"{_describe_largest_kl(writing)}{where}."
    )
    return Figure("Where do the models disagree?", answer, plot, _quote_tokens(table))


def build_fork_line(token: int | None, theme: Theme) -> list[dict[str, Any]]:
    """A dotted line at the first differing token, counted from 1; nothing where there is none."""
    if token is None:
        return []
    line = {"color": theme.action, "width": 2, "dash": "dot"}
    return [{"type": "line", "x0": token, "x1": token, "y0": 0, "y1": 1, "yref": "paper", "line": line}]


def draw_likeliest_tokens(token: WrittenToken, position: int, side: str, *, theme: Theme = themes.LIGHT) -> Figure:
    """The likeliest tokens of both models in one place (from 0) of the text of `side`."""
    table = tabulate_candidates(token)
    labels = [quote_token(text) for text in table["token"]]
    traces = [
        {
            "type": "bar",
            "orientation": "h",
            "x": table[f"p_{name}"].tolist(),
            "y": list(range(len(labels))),
            "customdata": labels,
            "name": name,
            "marker": {"color": colour},
            "hovertemplate": f"{name}: %{{x:.1%}} for %{{customdata}}<extra></extra>",
        }
        for name, colour in ((ORIGINAL, theme.original), (QUANTIZED, theme.quantized))
    ]
    plot = {
        "data": traces,
        "layout": themes.build_layout(
            theme,
            x="probability",
            height=120 + 34 * len(labels),
            barmode="group",
            xaxis={"tickformat": ".0%", "rangemode": "tozero"},
            # two tokens may look alike: bars are placed by number and labelled by token
            yaxis={
                "autorange": "reversed",
                "tickmode": "array",
                "tickvals": list(range(len(labels))),
                "ticktext": labels,
                "showgrid": False,
            },
            legend={"traceorder": "normal"},
        ),
    }
    first, second = (table.loc[table[f"p_{name}"].idxmax()] for name in (ORIGINAL, QUANTIZED))
    heading = f"At token {position + 1} of the {side} text ({quote_token(token.text)})"
    agree = f"{quote_token(first['token'])} is top-1 for both models"
    parted = f"top-1 is {quote_token(first['token'])} for the original and {quote_token(second['token'])} for the quantized model"
    probabilities = f"{themes.format_percent(first['p_original'])} and {themes.format_percent(second['p_quantized'])}"
    finding = agree if first["token"] == second["token"] else parted
    answer = f"{heading}, {finding}, with {probabilities}; KL {themes.format_error(token.kl)} nats."
    return Figure("What did each model predict here?", answer, plot, table.assign(token=labels))


def describe_speed_and_memory(
    measured: Sequence[Running], names: tuple[str, str] = ("the original", "the quantized model")
) -> str:
    """Speed and memory of the two models, as measured here."""
    before, after = measured
    ratio = after.speed.tokens_per_second / before.speed.tokens_per_second
    sizes = f"{themes.format_megabytes(8 * after.resident_bytes)} instead of {themes.format_megabytes(8 * before.resident_bytes)}"
    return (
        f"On this machine {names[1]} writes {themes.format_speed(after.speed.tokens_per_second)} "
        f"({after.speed.low:.0f} to {after.speed.high:.0f}), {ratio:.2f} × {names[0]}'s "
        f"{themes.format_speed(before.speed.tokens_per_second)}; its weights take {sizes} in memory."
    )
