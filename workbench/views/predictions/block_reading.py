"""Attention and key-value cache of one block: sentences and names for their pictures."""

from torch import Tensor

from workbench.analysis.predictions.block_reading import BlockReading, PackedBlock
from workbench.views import theme as themes
from workbench.views.token_text import quote_token
from workbench.views.weights.weight_raster import Names

ATTENTION_QUESTION, CHANGE_QUESTION = "Which tokens does each token attend to?", "Where does quantization move attention?"
CACHE_QUESTION, ERROR_QUESTION = "What does the cache hold?", "Which channels of the cache lose most?"


def name_attention(reading: BlockReading) -> Names:
    """A row for each token that attends, a column for each that is attended to."""
    tokens = tuple(map(quote_token, reading.tokens))
    return Names("share", "from", "to", "share of attention", tokens, tokens)


def name_cache(reading: BlockReading) -> Names:
    """A row for each token."""
    return Names("value", "token", "channel", "magnitude", tuple(map(quote_token, reading.tokens)))


def describe_attention(reading: BlockReading, head: int) -> str:
    """What the first token and the token itself get on average; the first one sees nothing else and is left out."""
    attention, count = reading.attention[head], len(reading.tokens)
    name = f"Head {head} of {reading.heads} in block {reading.block}"
    if count == 1:
        return f"{name}: the text has one token, which attends to itself."
    first, itself = float(attention[1:, 0].mean()), float(attention.diagonal()[1:].mean())
    return (
        f"{name}: over {themes.format_count(count - 1, 'token')} after the first, {themes.format_percent(first)} of the "
        f"attention goes to the first token, {quote_token(reading.tokens[0])}, and {themes.format_percent(itself)} to the token "
        "itself."
    )


def describe_attention_change(before: BlockReading, after: BlockReading, head: int) -> str:
    """How much attention goes elsewhere on average, and the largest change."""
    change = after.attention[head] - before.attention[head]
    moved = float(change.abs().sum(-1).mean()) / 2
    entry = int(change.abs().argmax())
    query, key = divmod(entry, change.shape[1])
    return (
        f"Head {head} of {before.heads} in block {before.block}: on average {themes.format_percent(moved)} of a token's "
        f"attention goes elsewhere; the largest change is {float(change[query, key]):+.3g}, from token {query} "
        f"{quote_token(before.tokens[query])} to token {key} {quote_token(before.tokens[key])}.".replace("-", "−")
    )


def describe_cache(reading: BlockReading, side: str, values: Tensor) -> str:
    """How large the largest channel is beside the typical one."""
    sizes = values.square().mean(0).sqrt()
    channel = int(sizes.argmax())
    times = float(sizes[channel] / sizes.median().clamp(min=1e-30))
    return (
        f"{side.capitalize()} of block {reading.block}: {values.shape[0]} tokens × {values.shape[1]:,} channels; channel "
        f"{channel} is the largest, {times:.1f} × the median channel."
    )


def describe_cache_error(packed: PackedBlock, side: str, before: Tensor, after: Tensor) -> str:
    """The share of energy that is lost where tokens are packed, and the channel that loses most."""
    name, count = packed.scheme.spelled(), packed.packed_tokens
    if not count:
        none = f"No block of tokens is full, so {name} packs none of the {len(before)} tokens yet"
        return f"{none}: read more, or use a smaller block."
    error, energy = (after - before)[:count].square(), before[:count].square()
    loss = float(error.sum() / energy.sum().clamp(min=1e-30))
    channel, share = int(error.sum(0).argmax()), float(error.sum(0).max() / error.sum().clamp(min=1e-30))
    return (
        f"With {name}, {themes.format_percent(loss)} of the energy of the {side} is lost over {count} packed tokens "
        f"({len(before) - count} newest in fp16); channel {channel} has {themes.format_percent(share)} of that error."
    )


def select_side(reading: BlockReading | PackedBlock, side: str) -> Tensor:
    """Keys or values `[T, channels]`."""
    return reading.keys if side == "keys" else reading.values
