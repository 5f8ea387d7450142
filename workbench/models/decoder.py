"""Reading tokens with a Llama-like model in few calls.

transformers runs a block as some forty small operations, which take longer than the packed matrices of a small block. Here each
block is its matrices, called as the modules that they are, and three compiled loops between them. The result is that of the
model's own forward pass but for the order of sums: `LanguageModel` compares the two before it uses this one.
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from workbench.interrupts import defer_interrupts
from workbench.kernels.matmul.joint_layers import JointLayers, join_layers
from workbench.models.streaming import NarrowEmbedding, NarrowHead

TYPES = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
ROTARY_TYPES = ("default", "linear", "llama3", "yarn")  # whose angles depend on the position alone
FIRST_CAPACITY = 256  # tokens; doubled when a text outgrows it


def describe_refusal(module: nn.Module) -> str | None:
    """Why a model must be run by its own forward pass, in one sentence; None where `Decoder` can read with it."""
    kind = type(module).__name__
    if kind not in TYPES or not type(module).__module__.startswith("transformers."):
        return f"{kind} has no decoder of its own here; those that have one are {', '.join(TYPES)}."
    config: Any = cast(Any, module.config)
    rotary = (config.rope_parameters or {}).get("rope_type", "default")
    if rotary not in ROTARY_TYPES:
        return f"its rotary positions are of type {rotary!r}, whose angles depend on the length of the text."
    if config.hidden_act != "silu":
        return f"its activation is {config.hidden_act!r}, not silu."
    if any(kind != "full_attention" for kind in getattr(config, "layer_types", None) or ()) or _has_window(config):
        return "its attention slides over a window."
    if any(parameter.device.type != "cpu" for parameter in module.parameters()):
        return "it is not on the CPU, or its weights are read block by block."
    narrow = {str(narrow_type) for part in module.modules() if (narrow_type := _find_narrow_type(part)) is not None}
    if narrow:
        return f"its modules compute in {min(narrow).removeprefix('torch.')}, not in float32."
    changed = next((name for name, part in module.named_modules() if _is_watched(part)), None)
    return None if changed is None else f"something watches or replaces the forward pass of {changed or 'the model'!r}."


def _has_window(config: Any) -> bool:
    """Whether attention is limited to the newest tokens, as in some Mistral and Qwen models."""
    return getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)


def _is_watched(part: nn.Module) -> bool:
    """Whether hooks or another forward pass hang on a module that `Decoder` does not call."""
    called = isinstance(part, nn.Linear | nn.Embedding) or not any(True for _ in part.children())
    return not called and bool(part._forward_hooks or part._forward_pre_hooks or "forward" in vars(part))


def _find_narrow_type(part: nn.Module) -> torch.dtype | None:
    """The type in which a module computes where that is not float32."""
    if isinstance(part, NarrowEmbedding | NarrowHead):
        return None
    types = (parameter.dtype for parameter in part.parameters(recurse=False) if parameter.is_floating_point())
    return next((kind for kind in types if kind != torch.float32), None)


class Decoder:
    """A Llama-like model in the midst of a text: it keeps keys and values of what it has read, in float32.

    Matrices are looked up in the module at every call, so that a layer that was exchanged counts from the next token on.

    Args:
        module: A model for which `describe_refusal` gives None.
    """

    def __init__(self, module: nn.Module) -> None:
        with defer_interrupts():
            from workbench.kernels.decoder import attention, gate, normalization
            from workbench.kernels.jit import threads
        self._attention, self._gate, self._normalization, self._threads = attention, gate, normalization, threads
        self._head, self._base = cast(Any, module), cast(Any, module).model
        config: Any = cast(Any, module.config)
        self._heads, self._key_heads = config.num_attention_heads, config.num_key_value_heads
        self._width = self._base.layers[0].self_attn.head_dim
        self._scale = np.float32(self._base.layers[0].self_attn.scaling)
        self._layers = list(self._base.layers)[: config.num_hidden_layers]
        self._read, self._capacity = 0, 0
        self._keys: list[np.ndarray] = []
        self._values: list[np.ndarray] = []
        self._joint: dict[nn.Module, JointLayers] = {}  # by the first of the layers

    def read(self, ids: Tensor) -> Tensor:
        """Next-token logits float32 `[V]` after these further tokens `[1, T]`."""
        tokens, first = ids.shape[1], self._read
        self._reserve(first + tokens)
        x = self._base.embed_tokens(ids)[0].float().contiguous().clone()
        hidden, change = torch.empty_like(x), torch.zeros_like(x)
        x_array, hidden_array = x.numpy(), hidden.numpy()
        add_and_normalize = self._normalization.add_and_normalize
        for number, block in enumerate(self._layers):
            norm = block.input_layernorm
            add_and_normalize(x_array, change.numpy(), _read_array(norm), norm.variance_epsilon, hidden_array)
            change = self._attend(block.self_attn, hidden, number, first)
            norm = block.post_attention_layernorm
            add_and_normalize(x_array, change.numpy(), _read_array(norm), norm.variance_epsilon, hidden_array)
            parts = block.mlp._modules
            gate, up = self._multiply(hidden, parts["gate_proj"], parts["up_proj"])
            self._gate.multiply_by_silu(gate.numpy(), up.numpy())
            change = parts["down_proj"](up)
        norm, self._read = self._base.norm, first + tokens
        add_and_normalize(x_array, change.numpy(), _read_array(norm), norm.variance_epsilon, hidden_array)
        return self._head.lm_head(hidden[-1:])[0].float()

    def _attend(self, part: Any, hidden: Tensor, number: int, first: int) -> Tensor:
        """What the attention of block `number` adds to the residual stream."""
        loops, tokens, projections = self._attention, len(hidden), part._modules
        query, key, value = self._multiply(hidden, projections["q_proj"], projections["k_proj"], projections["v_proj"])
        query = query.view(tokens, self._heads, self._width)
        key, value = (part.view(tokens, self._key_heads, self._width) for part in (key, value))
        query_array, key_array = query.numpy(), key.numpy()
        if "q_norm" in projections:
            self._normalize_heads(projections["q_norm"], query_array)
            self._normalize_heads(projections["k_norm"], key_array)
        cos, sin = self._cos[first : first + tokens], self._sin[first : first + tokens]
        loops.rotate(query_array, cos, sin)
        loops.rotate(key_array, cos, sin)
        keys, values = self._keys[number], self._values[number]
        loops.append(key_array, value.numpy(), first, keys, values)
        if tokens == 1:
            out = self._attend_with_one(query_array[0], keys, values, first + 1)
        else:
            out = _attend_with_many(query, torch.from_numpy(keys), torch.from_numpy(values), first, float(self._scale))
        return projections["o_proj"](out)

    def _multiply(self, x: Tensor, *layers: nn.Module) -> Sequence[Tensor]:
        """The outputs of layers that read the same input: for one token in one call, where their packed forms allow it."""
        if len(x) > 1:
            return [layer(x) for layer in layers]
        joint = self._joint.get(layers[0])
        if joint is None or joint.layers != layers:
            joint = self._joint[layers[0]] = join_layers(layers)
        return joint(x)

    def _attend_with_one(self, query: np.ndarray, keys: np.ndarray, values: np.ndarray, count: int) -> Tensor:
        """Attention of one token, `[1, heads · width]`."""
        out = torch.empty(1, self._heads * self._width)
        arguments = query, keys, values, count, self._scale, self._scores, out.numpy().reshape(query.shape)
        if self._threads.needs_threads(2 * self._heads * self._width * count):
            with self._threads.use_threads():
                self._attention.attend_parallel(*arguments)
        else:
            self._attention.attend_serial(*arguments)
        return out

    def _normalize_heads(self, norm: Any, heads: np.ndarray) -> None:
        """The norm of each head of `heads [tokens, heads, width]`, in place, as Qwen3 has it."""
        rows = heads.reshape(-1, self._width)
        self._normalization.normalize(rows, _read_array(norm), norm.variance_epsilon, rows)

    def _reserve(self, tokens: int) -> None:
        """Make room for keys and values of so many tokens."""
        if tokens <= self._capacity:
            return
        capacity = max(FIRST_CAPACITY, self._capacity)
        while capacity < tokens:
            capacity *= 2
        read, count = self._read, self._key_heads
        keys = [np.zeros((count, self._width, capacity), np.float32) for _ in self._layers]
        values = [np.zeros((count, capacity, self._width), np.float32) for _ in self._layers]
        for old, new in zip(self._keys, keys, strict=False):
            new[:, :, :read] = old[:, :, :read]
        for old, new in zip(self._values, values, strict=False):
            new[:, :read] = old[:, :read]
        self._keys, self._values, self._capacity = keys, values, capacity
        self._scores = np.empty((self._heads, capacity), np.float32)
        cos, sin = self._base.rotary_emb(torch.empty(0), torch.arange(capacity)[None])
        self._cos, self._sin = cos[0].contiguous().numpy(), sin[0].contiguous().numpy()


def _read_array(norm: nn.Module) -> np.ndarray:
    """The weight of a norm."""
    return cast(Tensor, norm._parameters["weight"]).detach().numpy()


def _attend_with_many(query: Tensor, keys: Tensor, values: Tensor, first: int, scale: float) -> Tensor:
    """Attention of several tokens `[T, heads, width]`, each to those up to itself; `[T, heads · width]`."""
    tokens, end = len(query), first + len(query)
    mask = None if first == 0 else torch.ones(tokens, end, dtype=torch.bool).tril(first)
    out = nn.functional.scaled_dot_product_attention(
        query.transpose(0, 1)[None],
        keys[None, :, :, :end].mT,
        values[None, :, :end],
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=True,
    )
    return out[0].transpose(0, 1).reshape(tokens, -1)
