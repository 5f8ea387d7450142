"""Two texts from one prompt, original and quantized, with the first differing token marked."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest

import pandas as pd

from workbench.views import theme as themes


@dataclass(frozen=True)
class Comparison:
    """`original` and `quantized` are HTML with the classes `prompt`, `fork` and `after`; `table` is their twin."""

    question: str
    answer: str
    original: str
    quantized: str
    table: pd.DataFrame


def side_by_side(prompt: str, original: Sequence[str], quantized: Sequence[str], *, done: bool = True) -> Comparison:
    """Compare two continuations token by token; while they are still written (`done` false) the sentence says so."""
    at = fork(original, quantized) if done else fork(original[: len(quantized)], quantized[: len(original)])
    table = pd.DataFrame(
        [
            {"position": i + 1, "original": shown(a), "quantized": shown(b)}
            for i, (a, b) in enumerate(zip_longest(original, quantized, fillvalue=None))
        ],
        columns=["position", "original", "quantized"],
    )
    return Comparison(
        "Does it still write the same?",
        sentence(original, quantized, at, done),
        marked(prompt, original, at),
        marked(prompt, quantized, at),
        table,
    )


def fork(original: Sequence[str], quantized: Sequence[str]) -> int | None:
    """The position of the first token that differs, or None where the two agree to the end."""
    pairs = zip_longest(original, quantized, fillvalue=None)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), None)


def marked(prompt: str, tokens: Sequence[str], at: int | None) -> str:
    """The prompt, the common beginning, the forking token, and what follows it."""
    before = tokens if at is None else tokens[:at]
    parts = [f'<span class="prompt">{html.escape(prompt)}</span>', html.escape("".join(before))]
    if at is not None and at < len(tokens):
        parts.append(f'<mark class="fork" title="first differing token">{html.escape(tokens[at])}</mark>')
        parts.append(f'<span class="after">{html.escape("".join(tokens[at + 1 :]))}</span>')
    return "".join(parts)


def sentence(original: Sequence[str], quantized: Sequence[str], at: int | None, done: bool) -> str:
    """How long the two agree, and on what they part."""
    if not done:
        return f"Writing: {themes.count(len(original), 'token')} of the original, {len(quantized)} of the quantized model."
    if at is None:
        return f"All {themes.count(len(original), 'token')} agree."
    a, b = (shown(t[at]) if at < len(t) else "the end" for t in (original, quantized))
    agree = (
        "The very first token differs"
        if at == 0
        else f"The first {themes.count(at, 'token')} agree"
        if at > 1
        else "The first token agrees"
    )
    return f"{agree}; token {at + 1} is {a} in the original and {b} in the quantized text."


def shown(token: str | None) -> str:
    """A token in quotes, so that spaces and line breaks are seen; nothing where the text had ended."""
    return "" if token is None else "“" + token.replace("\n", "↵") + "”"
