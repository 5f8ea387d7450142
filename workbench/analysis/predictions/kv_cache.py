"""Key-value caches in fewer bits: the effect on a model's predictions on a text, and bytes per token."""

from collections.abc import Callable, Iterable
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
    """Let a model read and write through a packed key-value cache.

    Args:
        model: A model from `wb.open_model` or `wb.load`.
        scheme: How the cache is stored, as in `wb.measure_cache`.
        block: Tokens that are packed together.

    Returns:
        A model with `generate` and `perplexity`, which `wb.compare` takes too.

    Raises:
        RecipeError: For a scheme or setting that does not exist.

    Example:
        >>> import workbench as wb
        >>> cached = wb.measures.cached_model(wb.open_model("builtin"), "kivi:bits=4")
        >>> cached.generate("Once upon a time", tokens=4)
        'Once upon a time, there was a'
    """
    how = parse(scheme) if isinstance(scheme, str) else scheme
    return CachedModel(get_language_model(model), how.pack, block=block, watches=how.watches, name=how.spelled())


def measure_cache(
    model: Readable,
    scheme: Scheme | str,
    text: Text,
    *,
    tokens: int | None = None,
    block: int = TOKENS_PER_PASS,
    on_progress: Callable[[float, float], None] = lambda *_: None,
) -> CacheResult:
    """Measure what storing the key-value cache in fewer bits does to a model's predictions on a text.

    Every token is predicted from what the packed cache gives back of all tokens before it, as in writing.

    Args:
        model: A model from `wb.open_model` or `wb.load`.
        scheme: How the cache is stored: a name, with settings as in "kivi:bits=2", or a part of the kind "kv".
        text: A text from `wb.text`.
        tokens: At most so many tokens of it, all when absent.
        block: Tokens that are packed together; the newest ones, at most so many, stay in fp16.
        on_progress: Called with the windows of text that are read, and all of them.

    Returns:
        The divergence from the model with its whole cache (KL in nats per token), and what the cache stored:
        `bits_per_value`, `bytes_per_token`.

    Raises:
        RecipeError: For a scheme or setting that does not exist.
        ModelError: For a model that writes no text.

    Example:
        >>> import workbench as wb
        >>> result = wb.measure_cache(wb.open_model("builtin"), "kivi:bits=4", wb.text("evaluation"), tokens=128, block=32)
        >>> result.divergence.tokens
        128
        >>> 4 < result.bits_per_value < 8  # codes, scales and zeros
        True
    """
    how = parse(scheme) if isinstance(scheme, str) else scheme
    lm, other, sizes = get_language_model(model), make_cached_model(model, how, block=block), []

    def changed(ids: Tensor) -> Tensor:
        logits, size = other.read(ids)
        sizes.append(size)
        return logits

    divergence = measure_divergence(lm, text, lm.logits, changed, tokens=tokens, on_progress=on_progress)
    return CacheResult(how, block, divergence, tuple(sizes))


def tabulate_caches(results: Iterable[CacheResult]) -> "pd.DataFrame":
    """Tabulate what schemes for the key-value cache cost and do to predictions.

    Args:
        results: What `wb.measure_cache` gave, one for each scheme.

    Returns:
        One row a result: scheme, bits_per_value, nominal_bits, bytes_per_token, perplexity and ratio with intervals, kl (nats per
        token), tokens, texts.

    Example:
        >>> import workbench as wb
        >>> model, text = wb.open_model("builtin"), wb.text("evaluation")
        >>> results = [wb.measure_cache(model, scheme, text, tokens=128) for scheme in ("kivi:bits=4", "kivi:bits=2")]
        >>> table = wb.measures.cache_table(results)
        >>> table["scheme"].tolist(), table["nominal_bits"].tolist()
        (['kivi:bits=4', 'kivi:bits=2'], [4.0, 2.0])
    """
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
