"""Perplexity and bits per byte of a language model on text, each with its interval (see `workbench.intervals`)."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workbench import intervals
from workbench.errors import ModelError, WorkbenchWarning
from workbench.intervals import Interval
from workbench.models.language_model import LanguageModel
from workbench.models.text import Text

WINDOW = 2048


@dataclass(frozen=True)
class Window:
    """Scored part of one document: `loss` in nats summed over `tokens` tokens, whose text is `bytes` long in UTF-8."""

    document: int
    loss: float
    tokens: int
    bytes: int


@dataclass(frozen=True)
class PerplexityResult:
    """exp(mean loss per token) and bits per UTF-8 byte over all scored tokens, with 95 % intervals; `windows` as scored.

    An interval is None where all tokens are of one short document: nothing shows then what another document would give.
    """

    perplexity: float
    perplexity_interval: Interval | None
    bits_per_byte: float
    bits_per_byte_interval: Interval | None
    tokens: int
    bytes: int
    windows: tuple[Window, ...]
    text: str

    def __repr__(self) -> str:
        size = f"{self.tokens:,} tokens of {self.text!r}"
        return (
            f"<PerplexityResult on {size}: {self.perplexity:.3f} "
            f"({intervals.format_interval(self.perplexity_interval, self.tokens)})>"
        )

    @property
    def losses(self) -> tuple[float, ...]:
        """Mean loss of each window, nats per token."""
        return tuple(window.loss / window.tokens for window in self.windows)


@dataclass(frozen=True)
class PerplexityRatio:
    """How many times the first model's perplexity another's is on the same `tokens` tokens, with its 95 % interval or None."""

    ratio: float
    interval: Interval | None
    tokens: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves 1 out: the two differ by more than the choice of the text explains."""
        return self.interval is not None and not self.interval[0] <= 1 <= self.interval[1]

    def against(self, what: str) -> str:
        """The ratio in words: `1.012 times the original's (95 %: 1.004 to 1.021)`, and whether it can be told from 1."""
        if self.interval == (1.0, 1.0):
            return f"the same as {what}'s on every document"
        sentence = f"{self.ratio:#.4g} times {what}'s ({intervals.format_interval(self.interval, self.tokens, '.4g')})"
        if self.clear or self.interval is None:
            return sentence
        return f"{sentence}: no significant difference on {self.tokens:,} token{'' if self.tokens == 1 else 's'}"


def compute_perplexity_ratio(first: PerplexityResult, other: PerplexityResult) -> PerplexityRatio:
    """`other` over `first`, measured on the same text; ModelError where they were not.

    Paired: both models' losses on a document are left out together, so what makes a document hard for both drops out, and the
    interval is much narrower than those of the two perplexities.
    """
    if [(w.document, w.tokens) for w in first.windows] != [(w.document, w.tokens) for w in other.windows]:
        sizes = f"{first.tokens} tokens of {first.text!r} and {other.tokens} of {other.text!r}"
        raise ModelError(f"perplexities on {sizes} cannot be paired; measure both on the same text, cut into the same windows.")
    columns = np.array([[b.loss - a.loss, a.tokens] for a, b in zip(first.windows, other.windows, strict=True)])
    return compute_paired_ratio(intervals.sum_by_unit(columns, _assign_window_units(first.windows)))


def compute_paired_ratio(sums: np.ndarray) -> PerplexityRatio:
    """The ratio from the sums `[units, 2]` of what the other model loses more, in nats, and of tokens."""
    difference, tokens = sums.sum(0)
    return PerplexityRatio(
        exponentiate(difference / tokens), intervals.exponentiate_interval(intervals.estimate_mean_interval(sums)), int(tokens)
    )


def perplexity(
    lm: LanguageModel, text: Text, tokens: int | None = None, on_progress: Callable[[float, float], None] = lambda *_: None
) -> PerplexityResult:
    """Score `text` document by document, at most `tokens` tokens in all, in its own order.

    A window holds at most min(context, 2048) tokens; its first token is only read, and the next window begins with the last
    token of the one before, so every token but a document's first is scored once. Intervals are those of `workbench.intervals`.
    A warning says where the model's predictions know what follows. `on_progress` is told `(windows read, windows)`.
    """
    return score_spans(lm, list(iterate_spans(lm, text, tokens)), text.name, on_progress)


def score_spans(
    lm: LanguageModel, spans: Sequence["Span"], name: str, on_progress: Callable[[float, float], None]
) -> PerplexityResult:
    """Score a text called `name` that is cut already; warns where predictions know what follows."""
    if lm.reads_ahead:
        warnings.warn(
            f"{lm.name!r} ({type(lm.module).__name__}) is bidirectional: its predictions see the following tokens, so its "
            f"perplexity is not comparable with that of a causal model.",
            WorkbenchWarning,
            stacklevel=4,
        )
    return summarise([score(lm, span) for span in show_spans(spans, on_progress)], name)


def show_spans(spans: Sequence["Span"], on_progress: Callable[[float, float], None]) -> Iterator["Span"]:
    """The same spans, of which `on_progress` is told how many are done: `(done, spans)`."""
    for done, span in enumerate(spans):
        on_progress(done, len(spans))
        yield span
    on_progress(len(spans), len(spans))


@dataclass(frozen=True)
class Span:
    """Tokens `start` to `stop` of one document's `ids [1, T]`: those before `first` are only read, each other one is scored."""

    document: int
    ids: Tensor
    start: int
    stop: int
    first: int

    @property
    def window(self) -> Tensor:
        """What the model reads at once, `[1, stop − start]`."""
        return self.ids[:, self.start : self.stop]


def iterate_spans(lm: LanguageModel, text: Text, tokens: int | None = None) -> Iterator[Span]:
    """`text` cut into windows that score at most `tokens` tokens in all; ModelError where there is nothing to score."""
    if tokens is not None and tokens < 1:
        raise ModelError(f"{tokens} tokens to score; use 1 or more, or None for the whole text.")
    reach, left, any_found = min(lm.context, WINDOW) - 1, tokens, False
    for index, document in enumerate(text.documents):
        if left == 0:
            break
        ids = lm.encode(document)
        ids = ids if left is None else ids[:, : left + 1]
        left = None if left is None else left - (ids.shape[1] - 1)
        for start in range(0, ids.shape[1] - 1, reach):
            any_found = True
            yield Span(index, ids, start, min(start + reach + 1, ids.shape[1]), start + 1)
    if not any_found:
        raise ModelError(f"text {text.name!r} has no token to score: every document is a single token.")


def score(lm: LanguageModel, span: Span) -> Window:
    """Loss and size of the scored part of one span."""
    size = _count_text_bytes(lm, span.ids[:, : span.stop]) - _count_text_bytes(lm, span.ids[:, : span.first])
    losses = _compute_token_losses(lm, span.window)[span.first - span.start - 1 :]
    return Window(span.document, float(losses.sum()), len(losses), size)


def _compute_token_losses(lm: LanguageModel, ids: Tensor) -> Tensor:
    """−log p of each token of `ids [1, T]` after the first, float64 `[T − 1]`, nats."""
    log_p = lm.logits(ids)[0, :-1].log_softmax(-1)
    return -log_p.gather(1, ids[0, 1:, None])[:, 0].double()


def _count_text_bytes(lm: LanguageModel, ids: Tensor) -> int:
    """UTF-8 bytes of the text that `ids` decode to."""
    return len(lm.decode(ids).encode())


def summarise(windows: list[Window], name: str) -> PerplexityResult:
    """Totals of all windows, and the intervals over their documents."""
    columns = np.array([[w.loss, w.bytes, w.tokens] for w in windows], dtype=np.float64)
    loss, size, tokens = columns.sum(0)
    sums = intervals.sum_by_unit(columns, _assign_window_units(windows))
    return PerplexityResult(
        perplexity=exponentiate(loss / tokens),
        perplexity_interval=intervals.exponentiate_interval(intervals.estimate_mean_interval(sums)),
        bits_per_byte=loss / math.log(2) / size,
        bits_per_byte_interval=intervals.estimate_interval(sums, lambda total: total[..., 0] / math.log(2) / total[..., 1]),
        tokens=int(tokens),
        bytes=int(size),
        windows=tuple(windows),
        text=name,
    )


def _assign_window_units(windows: Sequence[Window]) -> np.ndarray:
    """The unit of each window, see `intervals.units`."""
    return intervals.assign_units([w.document for w in windows], range(len(windows)), np.array([w.tokens for w in windows]))


def exponentiate(nats: float) -> float:
    """e^nats; infinity, not an error, where a destroyed model's perplexity exceeds the float range."""
    return float(torch.tensor(nats, dtype=torch.float64).exp())
