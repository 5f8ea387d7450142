"""A language model with a packed key-value cache: it evaluates and generates with the decoded cache.

The newest tokens, up to one block, stay in fp16; a full block is packed when the next token comes. Reading a text block by block
is therefore exactly what writing it token by token would see. A decoded copy is kept for speed, as packed layers keep theirs;
sizes count only what is stored.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.kernels import formats
from workbench.kernels.packing.packed import Packed, count_stored_bits
from workbench.models.language_model import LanguageModel

# keys and values [tokens, channels] of one block and the attention each token got [tokens], to their stored forms
Pack = Callable[[Tensor, Tensor, Tensor], tuple[Packed, Packed]]


@dataclass(frozen=True)
class CacheSize:
    """What a cache holds: `packed_tokens` of `tokens` in `packed_bits`, the others in fp16; `values` are numbers a token."""

    tokens: int
    packed_tokens: int
    values: int
    packed_bits: int

    @property
    def bytes(self) -> float:
        """All that is stored, the newest tokens in fp16 included."""
        return (self.packed_bits + 16 * self.values * (self.tokens - self.packed_tokens)) / 8


class CachedModel(LanguageModel):
    """The model of `lm` with a packed cache; its weights are shared, and both can run in turn.

    `pack` stores a block of `block` tokens; `watches` says that it needs each token's attention, for which the model computes
    attention step by step. Raises ModelError for models whose attention slides over a window shorter than their context.
    """

    def __init__(self, lm: LanguageModel, pack: Pack, *, block: int, watches: bool = False, name: str = "packed cache") -> None:
        super().__init__(lm.module, lm.tokenizer, f"{lm.name}, {name}", lock=lm.lock)
        if block < 1:
            raise ModelError(f"a block of {block} tokens; use 1 or more.")
        _check_attention(lm)
        self.pack, self.block, self.watches = pack, block, watches

    def logits(self, ids: Tensor) -> Tensor:
        """Next-token logits float32 `[1, T, V]`, each token read through the packed cache of those before it."""
        return self.read(ids)[0]

    def read(self, ids: Tensor) -> tuple[Tensor, CacheSize]:
        """The same, and what the cache stores at the end."""
        if ids.shape[1] > self.context:
            raise ModelError(f"{ids.shape[1]} tokens given, but the context is {self.context} tokens; shorten the text.")
        cache, pieces = self._new_cache(), []
        for piece in ids.split(self.block, 1):
            out, cache = self._forward(piece, cache, use_cache=True)
            pieces.append(out)
        return torch.cat(pieces, 1), _compute_cache_size(cache)

    @property
    def reads_stepwise(self) -> bool:
        """Always: reading through what the cache keeps is the point, whatever it loses."""
        return True

    def _new_cache(self) -> Any:
        config: Any = self.module.config
        layers = [build_layer_type()(self.pack, self.block) for _ in range(config.get_text_config().num_hidden_layers)]
        return _build_cache(layers)

    def _forward(self, ids: Tensor, cache: Any = None, *, use_cache: bool = False) -> tuple[Tensor, Any]:
        if not self.watches:
            return super()._forward(ids, cache, use_cache=use_cache)
        with self.lock, watch_attention(self.module, cache.layers):
            return super()._forward(ids, cache, use_cache=use_cache)


def _check_attention(lm: LanguageModel) -> None:
    """Raise ModelError where a layer forgets tokens inside the context: packed blocks are never dropped."""
    config: Any = lm.module.config
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    window = getattr(text, "sliding_window", None) if "sliding_attention" in kinds else None
    if kinds - {"full_attention", "sliding_attention"} or (window is not None and window < lm.context):
        what = f"attention over a window of {window} tokens" if window else f"layers of kind {', '.join(sorted(kinds))}"
        raise ModelError(f"{lm.name!r} has {what}; packed caches are for models that attend to their whole context.")


def _compute_cache_size(cache: Any) -> CacheSize:
    """What a cache of packed layers stores; tensors that blocks share count once."""
    bits, shared = 0, {}
    for node in (node for layer in cache.layers for block in layer.blocks for side in block for _, node in side.walk()):
        for name, tensor in node.tensors.items():
            if name in node.shared:
                shared[node.shared[name][0]] = count_stored_bits(tensor)
            else:
                bits += count_stored_bits(tensor)
    first = cache.layers[0]
    return CacheSize(
        first.get_seq_length(), first.packed_tokens, sum(layer.width for layer in cache.layers), bits + sum(shared.values())
    )


@contextmanager
def watch_attention(module: nn.Module, layers: Sequence[Any]) -> Iterator[None]:
    """Tell every layer of a cache how much attention its tokens get while the module runs."""
    model: Any = module
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the fast ways never form the weights
    try:
        with ExitStack() as hooks:
            for part in module.modules():
                number = getattr(part, "layer_idx", None)
                if type(part).__name__.endswith("Attention") and isinstance(number, int):
                    hooks.enter_context(part.register_forward_hook(partial(_pass_attention, layers[number])))
            yield
    finally:
        model.set_attn_implementation(before)


def _pass_attention(layer: Any, _module: nn.Module, _inputs: Any, output: Any) -> None:
    """Pass the attention weights `[1, heads, queries, tokens]` of a layer on to its cache."""
    layer.see(output[1])


@cache
def build_layer_type() -> type:
    """The cache of one layer; made on first use, since transformers takes seconds to import."""
    from transformers.cache_utils import DynamicLayer

    class PackedCacheLayer(DynamicLayer):
        """Packed blocks, then up to one block of tokens in fp16."""

        is_croppable = False

        def __init__(self, pack: Pack, block: int) -> None:
            super().__init__()
            self.pack, self.block, self.width = pack, block, 0
            self.blocks: list[tuple[Packed, Packed]] = []
            self.decoded: list[tuple[Tensor, Tensor]] = []
            self.recent: list[Tensor] = []
            self.attention, self.queries = torch.zeros(0), torch.zeros(0)
            self.packed_tokens = 0

        def get_seq_length(self) -> int:
            """Tokens held."""
            return self.packed_tokens + (self.recent[0].shape[-2] if self.recent else 0)

        def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
            """Pack what is full, take the new tokens, and give back all: packed ones as decoded, recent ones as fp16."""
            self.is_initialized = True
            self.settle()
            new = [x.half() for x in (key_states, value_states)]
            self.recent = [torch.cat(pair, -2) for pair in zip(self.recent, new, strict=True)] if self.recent else new
            self.width = sum(x.shape[1] * x.shape[3] for x in new)
            sides = [[*(d[side] for d in self.decoded), self.recent[side].to(key_states.dtype)] for side in (0, 1)]
            return torch.cat(sides[0], -2), torch.cat(sides[1], -2)

        def settle(self) -> None:
            """Pack every full block of recent tokens."""
            while self.recent and self.recent[0].shape[-2] >= self.block:
                first = [x[..., : self.block, :] for x in self.recent]
                shapes = [x.shape for x in first]
                flat = [x[0].transpose(0, 1).reshape(self.block, -1).float() for x in first]
                stored = self.pack(flat[0], flat[1], self.saliency())
                heads = [formats.decode(p).view(self.block, s[1], s[3]) for p, s in zip(stored, shapes, strict=True)]
                self.blocks.append(stored)
                self.decoded.append((heads[0].transpose(0, 1)[None], heads[1].transpose(0, 1)[None]))
                self.packed_tokens += self.block
                self.recent = [x[..., self.block :, :] for x in self.recent]

        def saliency(self) -> Tensor:
            """Attention that each token of the oldest recent block got, over the queries that could see it."""
            block_slice = slice(self.packed_tokens, self.packed_tokens + self.block)
            if len(self.attention) <= self.packed_tokens:
                return torch.zeros(self.block)
            return self.attention[block_slice] / self.queries[block_slice].clamp(min=1)

        def see(self, weights: Tensor) -> None:
            """Count the attention `[1, heads, queries, tokens]` of one forward pass."""
            queries, tokens = weights.shape[-2:]
            grown = torch.nn.functional.pad
            self.attention = grown(self.attention, (0, tokens - len(self.attention))) + weights[0].mean(0).sum(0).float()
            # the query at place p sees tokens 0 to p
            visible = (torch.arange(tokens - queries, tokens)[:, None] >= torch.arange(tokens)).sum(0).float()
            self.queries = grown(self.queries, (0, tokens - len(self.queries))) + visible

    return PackedCacheLayer


def _build_cache(layers: list[Any]) -> Any:
    """transformers' cache around these layers."""
    from transformers.cache_utils import Cache

    return Cache(layers=layers)
