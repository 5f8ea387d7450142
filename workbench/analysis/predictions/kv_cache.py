"""Key-value caches in fewer bits: the effect on a model's predictions on a text, and bytes per token."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from workbench.analysis.predictions.compare import Readable, get_language_model
from workbench.analysis.predictions.divergence import Divergence, measure_divergence
from workbench.intervals import make_interval_columns
from workbench.models.kv_cache import CachedModel, CacheSize
from workbench.models.perplexity import PerplexityRatio
from workbench.models.text import Text
from workbench.quantizers.kv import Scheme, parse

if TYPE_CHECKING:
    import pandas as pd

TOKENS_PER_PASS = 64


@dataclass(frozen=True)
class CacheResult:
    """A scheme on a text: the divergence from the model with its whole cache, and what the caches stored at the text's end.

    `bits_per_value` counts the packed tokens' stored bits, scales and maps included; `bytes_per_token` counts everything, the
    newest tokens (fewer than a block and one) in fp16 included.
    """

    scheme: Scheme
    block: int
    divergence: Divergence
    sizes: tuple[CacheSize, ...]

    def __repr__(self) -> str:
        return f"<CacheResult {self.scheme.spelled()!r}: {self.bytes_per_token:,.0f} bytes per token; {self.divergence!r}>"

    @property
    def ratio(self) -> PerplexityRatio:
        """Perplexity over that with the whole cache, with its interval, paired document by document."""
        return self.divergence.ratio

    @property
    def bits_per_value(self) -> float:
        """Stored bits per packed value; NaN where no text was longer than a block."""
        values = sum(size.values * size.packed_tokens for size in self.sizes)
        return sum(size.packed_bits for size in self.sizes) / values if values else float("nan")

    @property
    def bytes_per_token(self) -> float:
        """Bytes of all caches over their tokens."""
        return sum(size.bytes for size in self.sizes) / sum(size.tokens for size in self.sizes)

    @property
    def packed_share(self) -> float:
        """Share of the tokens that were packed at the end."""
        return sum(size.packed_tokens for size in self.sizes) / sum(size.tokens for size in self.sizes)


def make_cached_model(model: Readable, scheme: Scheme | str, *, block: int = TOKENS_PER_PASS) -> CachedModel:
    """The model reading and writing through a packed cache: `.generate`, `.perplexity` and `compare` work as ever."""
    how = parse(scheme) if isinstance(scheme, str) else scheme
    return CachedModel(get_language_model(model), how.pack, block=block, watches=how.watches, name=how.spelled())


def measure_cache(
    model: Readable,
    scheme: Scheme | str,
    text: Text,
    *,
    tokens: int | None = None,
    block: int = TOKENS_PER_PASS,
) -> CacheResult:
    """Read `text` (at most `tokens` tokens) through a packed cache and compare with the model's own, token by token.

    Every token is predicted from what the packed cache gives back of all tokens before it, as in writing.
    """
    how = parse(scheme) if isinstance(scheme, str) else scheme
    lm, other, sizes = get_language_model(model), make_cached_model(model, how, block=block), []

    def changed(ids: Tensor) -> Tensor:
        logits, size = other.read(ids)
        sizes.append(size)
        return logits

    divergence = measure_divergence(lm, text, lm.logits, changed, tokens=tokens)
    return CacheResult(how, block, divergence, tuple(sizes))


def tabulate_caches(results: Iterable[CacheResult]) -> "pd.DataFrame":
    """One row a result: scheme, bits_per_value, nominal_bits, bytes_per_token, perplexity and ratio with intervals, kl,
    tokens, texts."""
    import pandas as pd

    rows = []
    for result in results:
        divergence = result.divergence
        rows.append(
            {
                "scheme": result.scheme.spelled(),
                "bits_per_value": result.bits_per_value,
                "nominal_bits": result.scheme.nominal_bits,
                "bytes_per_token": result.bytes_per_token,
                "perplexity": divergence.perplexity,
                **make_interval_columns("perplexity", divergence.perplexity_interval),
                "ratio": result.ratio.ratio,
                **make_interval_columns("ratio", result.ratio.interval),
                "kl": divergence.kl,
                "tokens": divergence.tokens,
                "texts": divergence.documents,
            }
        )
    return pd.DataFrame(rows)
