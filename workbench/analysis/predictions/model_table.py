"""Several quantized models beside the original: stored bits, bytes, KL and perplexity on one text."""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.analysis.predictions.compare import check_tokens
from workbench.analysis.predictions.divergence import measure_divergence
from workbench.intervals import split_interval
from workbench.jobs import Counted
from workbench.models.language_model import LanguageModel
from workbench.models.text import Text

if TYPE_CHECKING:
    import pandas as pd

MODEL_COLUMNS = [
    "model",
    "bits_per_weight",
    "nominal_bits",
    "megabytes",
    "kl",
    "kl_low",
    "kl_high",
    "top1_agreement",
    "perplexity",
    "perplexity_low",
    "perplexity_high",
    "ratio",
    "ratio_low",
    "ratio_high",
]


@dataclass(frozen=True)
class Contender:
    """A model to compare: its name, how to open it, its stored and nominal bits per quantized weight, and its bytes on disk."""

    name: str
    model: Callable[[], LanguageModel]
    bits_per_weight: float
    nominal_bits: float
    bytes: int


@dataclass(frozen=True)
class CompareStep(Counted):
    """`table` holds what is measured so far, one row a model, the original first."""

    table: "pd.DataFrame"


def compare_models(
    original: Contender, others: Sequence[Contender], text: Text, *, tokens: int | None = None
) -> Generator[CompareStep, None, "pd.DataFrame"]:
    """Measure each model against the original on at most `tokens` tokens of `text`; yields the table so far, returns it whole.

    KL(original ‖ model) in nats per token and perplexity with their 95 % intervals, and ratio, the perplexity over the
    original's, paired document by document.
    ModelError where a model cuts the text into other tokens.
    """
    import pandas as pd

    first = original.model()
    rows: list[tuple[str | float, ...]] = []
    for done, other in enumerate(others, 1):
        second = other.model()
        check_tokens(first, second, text)
        divergence = measure_divergence(first, text, first.logits, second.logits, tokens=tokens)
        if not rows:
            original_row = (
                divergence.perplexity_original,
                *split_interval(divergence.perplexity_original_interval),
                1.0,
                1.0,
                1.0,
            )
            rows.append((original.name, *_list_stored_sizes(original), 0.0, 0.0, 0.0, 1.0, *original_row))
        kl = (divergence.kl, *split_interval(divergence.kl_interval), 1 - divergence.top1_changed)
        perplexity = (
            divergence.perplexity,
            *split_interval(divergence.perplexity_interval),
            divergence.ratio.ratio,
            *split_interval(divergence.ratio.interval),
        )
        rows.append((other.name, *_list_stored_sizes(other), *kl, *perplexity))
        yield CompareStep(done, len(others), pd.DataFrame(rows, columns=MODEL_COLUMNS))
    return pd.DataFrame(rows, columns=MODEL_COLUMNS)


def _list_stored_sizes(model: Contender) -> tuple[float, float, float]:
    """Stored and nominal bits per weight, and MB (10⁶ bytes)."""
    return model.bits_per_weight, model.nominal_bits, model.bytes / 1e6
