"""The divergence of a changed model's next-token distribution from the original's, token by token, on a text.

Logits are compared window by window and thrown away; what stays is a few numbers for each token.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from workbench import intervals
from workbench.cell_display import CellSummary, ShownInCell
from workbench.errors import ModelError
from workbench.intervals import Interval
from workbench.models.broken import are_logits_broken
from workbench.models.language_model import LanguageModel
from workbench.models.perplexity import PerplexityRatio, compute_paired_ratio, exponentiate, iterate_spans, show_spans
from workbench.models.text import Text

if TYPE_CHECKING:
    import pandas as pd

POSITIONS_AT_ONCE = 256  # positions compared at a time: two float32 tables of this × the vocabulary are in memory

Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tokens:
    """One entry for each scored token: its document and id, and what both models made of the position before it.

    `kl` = KL(original ‖ changed) in nats; `top1_original` and `top1` are the likeliest ids; losses are −log p in nats; windows
    of the text are numbered in their order.
    """

    document: np.ndarray
    id: np.ndarray
    kl: np.ndarray
    top1_original: np.ndarray
    top1: np.ndarray
    loss_original: np.ndarray
    loss: np.ndarray
    window: np.ndarray


@dataclass(frozen=True)
class Divergence(ShownInCell):
    """KL(original ‖ changed) in nats per token, the share of tokens whose likeliest successor changed, and both perplexities.

    95 % intervals are those of `workbench.intervals`, None where all tokens are of one short document. The mean KL is dominated
    by tokens the original is undecided about, hence the median beside it.
    """

    kl: float
    kl_interval: Interval | None
    kl_median: float
    top1_changed: float
    top1_changed_interval: Interval | None
    perplexity_original: float
    perplexity_original_interval: Interval | None
    perplexity: float
    perplexity_interval: Interval | None
    tokens: int
    text: str
    per_token: Tokens

    def __repr__(self) -> str:
        size = f"{self.tokens:,} tokens of {self.text!r}"
        return f"<Divergence on {size}: KL {self.kl:.3g}, perplexity {self.perplexity_original:.3f} → {self.perplexity:.3f}>"

    def cell_summary(self) -> CellSummary:
        """The figures with their intervals."""
        answer = (
            f"KL {self.kl:.4g} nats per token on {self.tokens:,} tokens of {self.text!r}; "
            f"perplexity {self.perplexity_original:.3f} before, {self.perplexity:.3f} after."
        )
        figures = [
            ("KL, nats per token", f"{self.kl:.4g}", self.kl_interval),
            ("top-1 changed", f"{self.top1_changed:.2%}", self.top1_changed_interval),
            ("perplexity before", f"{self.perplexity_original:.3f}", self.perplexity_original_interval),
            ("perplexity after", f"{self.perplexity:.3f}", self.perplexity_interval),
        ]
        rows = [(name, value, intervals.format_interval(limits, self.tokens, ".4g")) for name, value, limits in figures]
        return CellSummary("How far are the predictions from the original's?", answer, ("figure", "value", "95 %"), rows)

    @property
    def top1_agreement(self) -> float:
        """Share of tokens whose likeliest successor stayed."""
        return 1.0 - self.top1_changed

    @property
    def top1_agreement_interval(self) -> Interval | None:
        """Its 95 % interval."""
        changed = self.top1_changed_interval
        return None if changed is None else (1.0 - changed[1], 1.0 - changed[0])

    @cached_property
    def ratio(self) -> PerplexityRatio:
        """The changed model's perplexity over the original's, paired document by document."""
        tokens = self.per_token
        return compute_paired_ratio(sum_tokens_by_unit(tokens, (tokens.loss - tokens.loss_original)[:, None]))

    @property
    def documents(self) -> int:
        """How many documents the tokens are of."""
        return len(np.unique(self.per_token.document))

    def table(self, decode: Callable[[list[int]], str] | None = None) -> "pd.DataFrame":
        """One row a token: document, id, kl, top1_original, top1, loss_original, loss; and `token`, what it adds to the text.

        `decode` is a model's `settled`, or another function from ids to text, which gets all of a document's ids so far.
        """
        import pandas as pd

        table = pd.DataFrame(vars(self.per_token)).drop(columns="window")
        if decode is not None:
            table.insert(2, "token", _decode_tokens(self.per_token, decode))
        return table


def _decode_tokens(tokens: Tokens, decode: Callable[[list[int]], str]) -> list[str]:
    """What each token adds to the text of its document: most tokenizers drop the space before a token that stands alone."""
    texts: list[str] = []
    for document in dict.fromkeys(tokens.document.tolist()):
        ids, before = tokens.id[tokens.document == document].tolist(), ""
        for end in range(1, len(ids) + 1):
            text = decode(ids[:end])
            texts.append(text[len(before) :])
            before = text
    return texts


def measure_divergence(
    lm: LanguageModel,
    text: Text,
    original: Logits,
    changed: Logits,
    *,
    tokens: int | None = None,
    on_progress: Callable[[float, float], None] = lambda *_: None,
) -> Divergence:
    """Compare two functions from ids `[1, T]` to logits `[1, T, V]` on `text`, read and cut as `perplexity` does.

    `on_progress` is told `(windows read, windows)`.
    """
    spans = show_spans(list(iterate_spans(lm, text, tokens)), on_progress)
    scored = (score(span.document, span.window, original(span.window), changed(span.window)) for span in spans)
    return summarise(join_windows(scored), text.name)


def join_windows(windows: Iterable[tuple[np.ndarray, ...]]) -> Tokens:
    """All windows of a text, each as `score` returns it."""
    numbered = ((*columns, np.full(len(columns[0]), number)) for number, columns in enumerate(windows))
    return Tokens(*(np.concatenate(column) for column in zip(*numbered, strict=True)))


def score(document: int, ids: Tensor, original: Tensor, changed: Tensor) -> tuple[np.ndarray, ...]:
    """The columns of `Tokens` for one window."""
    if original.shape != changed.shape:
        shapes = f"{list(original.shape)} and {list(changed.shape)}"
        raise ModelError(
            f"logits of shape {shapes} cannot be compared, the vocabularies differ; compare models of one vocabulary."
        )
    for logits, which in ((original, "the original model"), (changed, "the changed model")):
        if are_logits_broken(logits):
            raise ModelError(
                f"the logits of {which} are not finite on document {document + 1} of the text; the model overflows there, so the "
                f"two cannot be compared."
            )
    target = ids[0, 1:]
    rows = []
    for start in range(0, len(target), POSITIONS_AT_ONCE):
        piece = slice(start, min(start + POSITIONS_AT_ONCE, len(target)))
        rows.append(score_positions(original[0, piece].log_softmax(-1), changed[0, piece].log_softmax(-1), target[piece]))
    columns = [torch.cat(column).numpy() for column in zip(*rows, strict=True)]
    return (np.full(len(target), document), target.numpy(), *columns)


def score_positions(p: Tensor, q: Tensor, target: Tensor, floor: float = -math.inf) -> list[Tensor]:
    """KL, both likeliest ids and both losses of the tokens `target [n]`, from log-probabilities `p` and `q` `[n, V]`.

    Tokens whose log-probability in `p` is not above `floor` count nothing in the KL: 0 · log 0 = 0 for those it rules out.
    """
    kl = torch.where(p > floor, p.exp() * (p - q), torch.zeros_like(p)).sum(-1)
    losses = [-x.gather(1, target[:, None])[:, 0].double() for x in (p, q)]
    return [kl.double(), p.argmax(-1), q.argmax(-1), *losses]


def summarise(per_token: Tokens, text: str) -> Divergence:
    """Means over all tokens, and their intervals over documents."""
    changed = per_token.top1_original != per_token.top1
    columns = np.stack([per_token.kl, changed, per_token.loss_original, per_token.loss], 1)
    kl, top1, original, loss = columns.mean(0)
    sums = sum_tokens_by_unit(per_token, columns)
    return Divergence(
        kl=float(kl),
        kl_interval=intervals.estimate_positive_interval(sums),
        kl_median=float(np.median(per_token.kl)),
        top1_changed=float(top1),
        top1_changed_interval=intervals.estimate_share_interval(sums, 1),
        perplexity_original=exponentiate(float(original)),
        perplexity_original_interval=intervals.exponentiate_interval(intervals.estimate_mean_interval(sums, 2)),
        perplexity=exponentiate(float(loss)),
        perplexity_interval=intervals.exponentiate_interval(intervals.estimate_mean_interval(sums, 3)),
        tokens=len(changed),
        text=text,
        per_token=per_token,
    )


def sum_tokens_by_unit(per_token: Tokens, columns: np.ndarray) -> np.ndarray:
    """Sums `[units, k + 1]` of `columns [tokens, k]` over what intervals leave out in turn, and the number of tokens."""
    counted = np.concatenate([columns, np.ones((len(columns), 1))], 1)
    return intervals.sum_by_unit(counted, assign_token_units(per_token))


def assign_token_units(per_token: Tokens) -> np.ndarray:
    """The number of each token's unit, see `intervals.assign_units`."""
    return intervals.assign_units(per_token.document, per_token.window, np.ones(len(per_token.kl)))
