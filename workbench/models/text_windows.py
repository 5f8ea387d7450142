"""Perplexity as other programs measure it: a text as one row of tokens, cut into windows by their rules.

`perplexity` reads each document from its own beginning. The programs here know no documents: they join all of them, and differ
in which windows they cut and which tokens of a window they score. A figure can be held against a table only where both agree.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor

from workbench.errors import ModelError, WorkbenchWarning
from workbench.models.language_model import LanguageModel
from workbench.models.perplexity import WINDOW, PerplexityResult, Span, score_spans
from workbench.models.text import Text

if TYPE_CHECKING:
    from workbench.analysis.predictions.compare import Readable

BETWEEN_DOCUMENTS = "\n\n"
LLAMA_CPP_WINDOW = 512
STYLES = ("strided", "gptq", "llama.cpp")


@dataclass(frozen=True)
class WindowRule:
    """Windows of `window` tokens that begin every `stride` tokens, and which of their tokens are scored.

    `strided`, as in the documentation of transformers: each token once, with as much context as the windows give it; the last
    window may be shorter. `gptq`, as in the tables of papers since GPTQ: windows side by side, all but the first token of each,
    and what is left at the end is dropped. `llama.cpp`, as its program llama-perplexity: the same windows, of which the second
    half is scored, and the first token of each is replaced by the model's first token where the tokenizer has one.
    """

    style: str
    window: int
    stride: int


def make_window_rule(lm: LanguageModel, style: str, window: int | None = None, stride: int | None = None) -> WindowRule:
    """The rule for a model: windows are no longer than its context, and a warning says where they would have been."""
    if style not in STYLES:
        raise ModelError(f"unknown style {style!r} of windows; use one of {', '.join(STYLES)}.")
    wanted_window = window or (LLAMA_CPP_WINDOW if style == "llama.cpp" else WINDOW)
    size = min(wanted_window, lm.context)
    if wanted_window < 4:
        raise ModelError(f"a window of {wanted_window} tokens; use 4 or more.")
    if style != "strided" and stride not in (None, wanted_window):
        raise ModelError(f"a stride of {stride} tokens with windows of {wanted_window} as in {style}; leave the stride out.")
    if size < wanted_window:
        warnings.warn(
            f"windows have {size:,} tokens, not {wanted_window:,}: that is the context of {lm.name!r}. The perplexity is not "
            f"comparable with one measured in longer windows.",
            WorkbenchWarning,
            stacklevel=3,
        )
    step = min(stride or size, size)
    if step < 1:
        raise ModelError(f"a stride of {step} tokens; use 1 or more.")
    return WindowRule(style, size, step)


def measure_in_windows(
    model: "Readable | LanguageModel",
    text: Text,
    *,
    style: str = "strided",
    window: int | None = None,
    stride: int | None = None,
    tokens: int | None = None,
    on_progress: Callable[[float, float], None] = lambda *_: None,
) -> PerplexityResult:
    """Measure perplexity as another program does, over all documents joined, so that it can be held against its figures.

    Args:
        model: From `wb.open_model`, `wb.load` or `wb.pack_model`.
        text: A text from `wb.text`; an empty line joins its documents.
        style: "strided" (the documentation of transformers), "gptq" (tables of papers) or "llama.cpp" (llama-perplexity).
        window: Tokens of a window; 2,048, or 512 for llama.cpp, when absent. At most the model's context is used.
        stride: Tokens from the beginning of a window to that of the next, for "strided"; as long as the window when absent.
        tokens: At most so many tokens of the text are read, all when absent.
        on_progress: Called with the windows that are read, and all of them.

    Returns:
        exp(mean loss per scored token) with its 95 % interval over runs of windows.

    Raises:
        ModelError: For an unknown style, a window too short, or a text of less than one window.

    Example:
        >>> import workbench as wb
        >>> model = wb.open_model("builtin")
        >>> found = wb.measures.windowed_perplexity(model, wb.text("evaluation"), style="gptq", window=64, tokens=256)
        >>> found.tokens, len(found.windows)  # four windows, the first token of which is only read
        (252, 4)
    """
    lm = model if isinstance(model, LanguageModel) else model.language_model()
    rule = make_window_rule(lm, style, window, stride)
    return score_spans(lm, cut_windows(lm, text, rule, tokens), text.name, on_progress)


def join_tokens(lm: LanguageModel, text: Text, tokens: int | None = None) -> Tensor:
    """Token ids `[1, T]` of all documents joined, encoded at once; the first `tokens` of them."""
    if tokens is not None and tokens < 1:
        raise ModelError(f"{tokens} tokens to read; use 1 or more, or None for the whole text.")
    return lm.encode(BETWEEN_DOCUMENTS.join(text.documents))[:, :tokens]


def cut_windows(lm: LanguageModel, text: Text, rule: WindowRule, tokens: int | None = None) -> list[Span]:
    """The windows of a text by a rule; ModelError where there is none."""
    ids = join_tokens(lm, text, tokens)
    spans = _cut_strided(ids, rule) if rule.style == "strided" else _cut_side_by_side(lm, ids, rule)
    if not spans:
        count = f"{ids.shape[1]:,} token{'' if ids.shape[1] == 1 else 's'}"
        raise ModelError(
            f"text {text.name!r} has {count}, less than one window of {rule.window:,}; use a shorter window or a longer text."
        )
    return spans


def _cut_strided(ids: Tensor, rule: WindowRule) -> list[Span]:
    """Windows that overlap where the stride is shorter; each scores what no window before it did."""
    spans, scored, total = [], 1, ids.shape[1]
    for start in range(0, total - 1, rule.stride):
        stop = min(start + rule.window, total)
        first = max(scored, start + 1)
        if stop > first:
            spans.append(_make_window(ids[:, start:stop], first - start))
        scored = stop
        if stop == total:
            break
    return spans


def _cut_side_by_side(lm: LanguageModel, ids: Tensor, rule: WindowRule) -> list[Span]:
    """Complete windows side by side."""
    spans = []
    begin = find_first_token(lm) if rule.style == "llama.cpp" else None
    first = rule.window // 2 + 1 if rule.style == "llama.cpp" else 1
    for start in range(0, ids.shape[1] - rule.window + 1, rule.window):
        piece = ids[:, start : start + rule.window]
        spans.append(_make_window(piece if begin is None else replace_first_token(piece, begin), first))
    return spans


def _make_window(ids: Tensor, first: int) -> Span:
    """A window as a span of its own ids: its bytes are those of its own text, and all windows are of one document."""
    return Span(0, ids, 0, ids.shape[1], first)


def find_first_token(lm: LanguageModel) -> int | None:
    """The token that the tokenizer puts before every text, None where it puts none."""
    begin = cast("int | None", lm.tokenizer.bos_token_id)
    return begin if begin is not None and int(lm.encode("a")[0, 0]) == begin else None


def replace_first_token(ids: Tensor, begin: int) -> Tensor:
    """The same ids `[1, T]` with another first one."""
    return torch.cat([torch.full_like(ids[:, :1], begin), ids[:, 1:]], 1)
