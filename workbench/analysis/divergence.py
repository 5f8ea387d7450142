"""How far a changed model's next-token distribution is from the original's, token by token, on a text.

Logits are compared window by window and thrown away; what stays is a few numbers for each token.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from workbench.errors import ModelError
from workbench.models.language_model import LanguageModel
from workbench.models.perplexity import RESAMPLES, Interval, exp, percentiles, spans
from workbench.models.text import Text

if TYPE_CHECKING:
    import pandas as pd

ROWS = 256  # positions compared at a time: two float32 tables of ROWS × vocabulary are in memory

Logits = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tokens:
    """One entry for each scored token: its document and id, and what both models made of the position before it.

    `kl` = KL(original ‖ changed) in nats; `top1_original` and `top1` are the likeliest ids; losses are −log p in nats.
    """

    document: np.ndarray
    id: np.ndarray
    kl: np.ndarray
    top1_original: np.ndarray
    top1: np.ndarray
    loss_original: np.ndarray
    loss: np.ndarray


@dataclass(frozen=True)
class Divergence:
    """KL(original ‖ changed) in nats per token, the share of tokens whose likeliest successor changed, and both perplexities.

    Intervals are 95 % percentile bootstraps over documents (over single tokens where there is one document), drawn by `seed`.
    The mean KL is dominated by tokens the original is undecided about, hence the median beside it.
    """

    kl: float
    kl_interval: Interval
    kl_median: float
    top1_changed: float
    top1_changed_interval: Interval
    perplexity_original: float
    perplexity_original_interval: Interval
    perplexity: float
    perplexity_interval: Interval
    tokens: int
    text: str
    seed: int
    per_token: Tokens

    @property
    def top1_agreement(self) -> float:
        """Share of tokens whose likeliest successor stayed."""
        return 1.0 - self.top1_changed

    @property
    def documents(self) -> int:
        """How many documents the tokens are of; intervals over few of them are rough."""
        return len(np.unique(self.per_token.document))

    def table(self, decode: Callable[[list[int]], str] | None = None) -> "pd.DataFrame":
        """One row a token: document, id, kl, top1_original, top1, loss_original, loss; and `token`, what it adds to the text.

        `decode` is a model's `settled`, or another function from ids to text, which gets all of a document's ids so far.
        """
        import pandas as pd

        table = pd.DataFrame(vars(self.per_token))
        if decode is not None:
            table.insert(2, "token", pieces(self.per_token, decode))
        return table


def pieces(tokens: Tokens, decode: Callable[[list[int]], str]) -> list[str]:
    """What each token adds to the text of its document: most tokenizers drop the space before a token that stands alone."""
    found: list[str] = []
    for document in dict.fromkeys(tokens.document.tolist()):
        ids, before = tokens.id[tokens.document == document].tolist(), ""
        for end in range(1, len(ids) + 1):
            text = decode(ids[:end])
            found.append(text[len(before) :])
            before = text
    return found


def diverge(
    lm: LanguageModel, text: Text, original: Logits, changed: Logits, *, tokens: int | None = None, seed: int = 0
) -> Divergence:
    """Compare two functions from ids `[1, T]` to logits `[1, T, V]` on `text`, read and cut as `perplexity` does."""
    pieces = [score(span.document, span.window, original(span.window), changed(span.window)) for span in spans(lm, text, tokens)]
    return summarise(Tokens(*(np.concatenate(column) for column in zip(*pieces, strict=True))), text.name, seed)


def score(document: int, ids: Tensor, original: Tensor, changed: Tensor) -> tuple[np.ndarray, ...]:
    """The columns of `Tokens` for one window."""
    if original.shape != changed.shape:
        shapes = f"{list(original.shape)} and {list(changed.shape)}"
        raise ModelError(
            f"logits of shape {shapes} cannot be compared, the vocabularies differ; compare models of one vocabulary."
        )
    target = ids[0, 1:]
    rows = []
    for start in range(0, len(target), ROWS):
        own = slice(start, min(start + ROWS, len(target)))
        p, q = original[0, own].log_softmax(-1), changed[0, own].log_softmax(-1)
        # p log(p/q), with 0 · log 0 = 0 for tokens that the original rules out
        kl = torch.where(p.isneginf(), torch.zeros_like(p), p.exp() * (p - q)).sum(-1)
        losses = [-x.gather(1, target[own, None])[:, 0] for x in (p, q)]
        rows.append([kl.double(), p.argmax(-1), q.argmax(-1), *(loss.double() for loss in losses)])
    columns = [torch.cat(column).numpy() for column in zip(*rows, strict=True)]
    return (np.full(len(target), document), target.numpy(), *columns)


def summarise(per_token: Tokens, text: str, seed: int) -> Divergence:
    """Means over all tokens and the spread of the same means over resampled documents."""
    changed = per_token.top1_original != per_token.top1
    columns = np.stack([per_token.kl, changed, per_token.loss_original, per_token.loss, np.ones(len(changed))], 1)
    means = columns[:, :4].mean(0)
    resampled = resample(columns, per_token.document, seed)
    kl, top1, original, loss = (percentiles(column) for column in resampled.T)
    return Divergence(
        kl=float(means[0]),
        kl_interval=kl,
        kl_median=float(np.median(per_token.kl)),
        top1_changed=float(means[1]),
        top1_changed_interval=top1,
        perplexity_original=exp(float(means[2])),
        perplexity_original_interval=(exp(original[0]), exp(original[1])),
        perplexity=exp(float(means[3])),
        perplexity_interval=(exp(loss[0]), exp(loss[1])),
        tokens=len(changed),
        text=text,
        seed=seed,
        per_token=per_token,
    )


def resample(columns: np.ndarray, document: np.ndarray, seed: int) -> np.ndarray:
    """Means `[RESAMPLES, 4]` of the first four columns over documents drawn with replacement; the last column counts tokens."""
    names, group = np.unique(document, return_inverse=True)
    if len(names) == 1:
        group = np.arange(len(columns))
    sums = np.zeros((group.max() + 1, columns.shape[1]))
    np.add.at(sums, group, columns)
    generator = np.random.default_rng(seed)
    totals = np.stack([sums[generator.integers(len(sums), size=len(sums))].sum(0) for _ in range(RESAMPLES)])
    return totals[:, :-1] / totals[:, -1:]
