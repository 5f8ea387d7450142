"""What one block of a model does with a text: which tokens its heads attend to, and what its key-value cache holds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.analysis.predictions.compare import Readable, get_language_model
from workbench.errors import ModelError
from workbench.models.kv_cache import build_layer_type, watch_attention
from workbench.models.language_model import LanguageModel
from workbench.quantizers.kv import Scheme, parse

if TYPE_CHECKING:
    import pandas as pd

READ_TOKENS = 64  # tokens of a text that are read
MAX_TOKENS = 256  # whose squares fit a picture cell by cell
STRONGEST = 20  # pairs of tokens, or channels, of a table


@dataclass(frozen=True)
class BlockReading:
    """A text of `tokens` in one block.

    `attention [heads, T, T]` is that of each token (row) to those before it (column); `keys` and `values [T, channels]` are what
    the cache holds, the channels of all heads side by side.
    """

    block: int
    tokens: tuple[str, ...]
    attention: Tensor
    keys: Tensor
    values: Tensor

    @property
    def heads(self) -> int:
        """Heads that attend; keys and values may have fewer."""
        return len(self.attention)


class _Recorder:
    """Keeps the attention of the layer of a cache that it stands for."""

    def __init__(self) -> None:
        self.weights: Tensor | None = None

    def see(self, weights: Tensor | None) -> None:
        """Attention `[1, heads, T, T]` of one forward pass."""
        self.weights = weights


def read_block(model: Readable | LanguageModel, text: str, block: int, *, tokens: int = READ_TOKENS) -> BlockReading:
    """Read a text and keep the attention and the cache of one block.

    Args:
        model: A model from `wb.open_model` or `wb.load`.
        text: The text.
        block: The number of the block, from 0.
        tokens: At most so many tokens of the text, 256 at most.

    Returns:
        Attention, keys and values, and the text of each token.

    Raises:
        ModelError: For a block that there is not, a number of tokens out of range, or a model without attention or without such
            a cache.

    Example:
        >>> import workbench as wb
        >>> reading = wb.measures.block_reading(wb.open_model("builtin"), "Once upon a time", 2)
        >>> reading.attention.shape[1:], float(reading.attention[0, 0, 0])  # the first token sees only itself
        (torch.Size([5, 5]), 1.0)
    """
    lm = get_language_model(model)
    module: Any = lm.module
    count = int(module.config.get_text_config().num_hidden_layers)
    if not 0 <= block < count:
        raise ModelError(f"block {block} of {lm.name!r}; it has the blocks 0 to {count - 1}.")
    if not 1 <= tokens <= MAX_TOKENS:
        raise ModelError(f"{tokens} tokens to read; use 1 to {MAX_TOKENS}.")
    ids = lm.encode(text)[:, : min(tokens, lm.context)]
    recorders = [_Recorder() for _ in range(count)]
    with lm.lock, watch_attention(module, recorders):
        cache = lm.fill_cache(ids)
    layers, attention = getattr(cache, "layers", ()), recorders[block].weights
    if attention is None or len(layers) <= block or getattr(layers[block], "keys", None) is None:
        raise ModelError(f"block {block} of {lm.name!r} has no attention with keys and values; choose another block or model.")
    keys, values = (_join_heads(side) for side in (layers[block].keys, layers[block].values))
    pieces = tuple(
        lm.tokenizer.convert_tokens_to_string([piece]) for piece in lm.tokenizer.convert_ids_to_tokens(ids[0].tolist())
    )
    return BlockReading(block, pieces, attention[0].float().cpu(), keys, values)


def _join_heads(side: Tensor) -> Tensor:
    """Keys or values `[1, heads, T, size]` as `[T, heads · size]`."""
    return side[0].transpose(0, 1).flatten(1).float().cpu()


@dataclass(frozen=True)
class PackedBlock:
    """The cache of a `BlockReading` as a scheme gives it back: `keys` and `values [T, channels]`; the first `packed_tokens` are
    packed, the newest ones in fp16."""

    scheme: Scheme
    keys: Tensor
    values: Tensor
    packed_tokens: int


def pack_block(reading: BlockReading, scheme: Scheme | str, *, block: int = 16) -> PackedBlock:
    """Store a block's cache as a scheme does, block of tokens by block of tokens, and decode it.

    Args:
        reading: What `wb.measures.block_reading` gave.
        scheme: How the cache is stored, as in `wb.measure_cache`.
        block: Tokens that are packed together; those after the last full block stay in fp16.

    Returns:
        Keys and values as they are read again.

    Raises:
        RecipeError: For a scheme or setting that does not exist.

    Example:
        >>> import workbench as wb
        >>> reading = wb.measures.block_reading(wb.open_model("builtin"), "Once upon a time there was a little girl", 2)
        >>> packed = wb.measures.packed_block(reading, "kivi:bits=4", block=8)
        >>> packed.packed_tokens, bool((packed.keys[:8] != reading.keys[:8]).any())
        (8, True)
    """
    how = parse(scheme) if isinstance(scheme, str) else scheme
    layer: Any = build_layer_type()(how.pack, block)
    both = (reading.keys, reading.values)
    for start in range(0, len(reading.tokens), block):
        end = min(start + block, len(reading.tokens))
        layer.update(*(side[start:end][None, None] for side in both))
        layer.see(reading.attention[None, :, start:end, :end])
    layer.settle()
    sides = [[*(pair[side] for pair in layer.decoded), layer.recent[side]] for side in (0, 1)]
    keys, values = (torch.cat([part.float() for part in side], -2)[0, 0] for side in sides)
    return PackedBlock(how, keys, values, layer.packed_tokens)


def tabulate_attention(
    before: BlockReading, after: BlockReading | None, head: int, *, difference: bool = False
) -> "pd.DataFrame":
    """The strongest pairs of tokens of one head, or with `difference` those that change most: query, query_token, key, key_token,
    attention and, where there is a second reading, attention_quantized and attention_change."""
    import pandas as pd

    original = before.attention[head]
    quantized = None if after is None else after.attention[head]
    ranked = original if quantized is None or not difference else (quantized - original).abs()
    order = ranked.flatten().argsort(descending=True, stable=True)[:STRONGEST]
    rows = []
    for query, key in ((int(entry) // ranked.shape[1], int(entry) % ranked.shape[1]) for entry in order):
        row: dict[str, object] = {
            "query": query,
            "query_token": before.tokens[query],
            "key": key,
            "key_token": before.tokens[key],
        }
        share = row["attention"] = float(original[query, key])
        if quantized is not None:
            changed = row["attention_quantized"] = float(quantized[query, key])
            row["attention_change"] = changed - share
        rows.append(row)
    return pd.DataFrame(rows)


def tabulate_channel_errors(before: Tensor, after: Tensor, packed_tokens: int) -> "pd.DataFrame":
    """The channels `[T, channels]` of packed tokens by their share of the squared error, largest first: cache_channel,
    channel_size (root mean square), channel_error (share of its energy) and channel_share (of all error)."""
    import pandas as pd

    packed, error = before[:packed_tokens], (after - before)[:packed_tokens]
    energy, loss = packed.square().sum(0), error.square().sum(0)
    table = pd.DataFrame(
        {
            "cache_channel": range(before.shape[1]),
            "channel_size": (energy / max(packed_tokens, 1)).sqrt().tolist(),
            "channel_error": (loss / energy.clamp(min=1e-30)).tolist(),
            "channel_share": (loss / loss.sum().clamp(min=1e-30)).tolist(),
        }
    )
    return table.sort_values("channel_share", ascending=False, kind="stable").head(STRONGEST).reset_index(drop=True)
