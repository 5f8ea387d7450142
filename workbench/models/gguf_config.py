"""The configuration of a GGUF file as transformers' own: the metadata of llama.cpp under the names of `config.json`.

Only architectures are read whose every fact that changes what is computed can be told from the file; each is compared in the
tests with the model that the file was written from.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from workbench.errors import ModelError
from workbench.exchange.reading.gguf_file import GgufFile
from workbench.json_value import shorten_value

COMMON = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
SLIDING = {"attention.sliding_window": "sliding_window"}
NEEDED = ("embedding_length", "block_count", "attention.head_count")
GPT2 = {
    "context_length": "n_positions",
    "embedding_length": "n_embd",
    "block_count": "n_layer",
    "feed_forward_length": "n_inner",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
TOKENS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "padding_token_id": "pad_token_id"}
LARGEST_COUNT = 1 << 24  # of any size in a configuration
BLOCK = re.compile(r"blk\.(\d+)\.")
MIXTURES = ("llama", "qwen2moe", "qwen3moe")  # llama: Mixtral
LLAMA3_LOW, LLAMA3_HIGH, LLAMA3_CONTEXT = 1.0, 4.0, 8192  # as every Llama 3.1 and later has them
GEMMA2_27B_BLOCKS, GEMMA3_27B_BLOCKS = 46, 62  # their attention is scaled by the width of a head in the residual stream


class Metadata:
    """The metadata of one file, with the names of its architecture."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file
        architecture = file.metadata.get("general.architecture")
        if not isinstance(architecture, str):
            raise ModelError(f"{file.path} names no architecture (general.architecture); it is no file of a model.")
        self.architecture = architecture

    def find(self, name: str) -> Any:
        """A fact of the architecture, such as "attention.head_count"; None where the file does not say it."""
        return self.file.metadata.get(f"{self.architecture}.{name}")

    def number(self, name: str) -> float | None:
        """A fact that is a number; ModelError where it is another thing, or larger than any model's."""
        value = self.find(name)
        if isinstance(value, list) and value and len(set(map(str, value))) == 1:
            value = value[0]  # a number for each block, all alike
        if value is not None and (type(value) not in (int, float) or not 0 <= value <= LARGEST_COUNT or math.isnan(value)):
            raise ModelError(f"{self.file.path} says {self.architecture}.{name} {shorten_value(value)}; it must be one number.")
        return value

    def has(self, tensor: str) -> bool:
        """Whether the first block, or the file, holds this tensor."""
        return tensor in self.file.tensors or f"blk.0.{tensor}" in self.file.tensors


def build_config(file: GgufFile) -> dict[str, Any]:
    """The fields of a config.json for the model of a GGUF file.

    Args:
        file: The header of the file.

    Returns:
        Plain JSON values, with `model_type` and `architectures`.

    Raises:
        ModelError: In one sentence, where the architecture is not read here, or the metadata contradicts the tensors.
    """
    facts = Metadata(file)
    if facts.architecture not in ARCHITECTURES:
        raise ModelError(
            f"{file.path} is a model of architecture {shorten_value(facts.architecture)}; GGUF files are read of "
            f"{', '.join(sorted(ARCHITECTURES))}: give the folder of the original model in Hugging Face layout."
        )
    if facts.find("expert_count") and facts.architecture not in MIXTURES:
        raise ModelError(
            f"{file.path} is a mixture of experts of architecture {facts.architecture!r}; mixtures are read of "
            f"{', '.join(MIXTURES)}: give the folder of the original model in Hugging Face layout."
        )
    names, complete = ARCHITECTURES[facts.architecture]
    if facts.find("expert_count") and facts.architecture == "llama":
        complete = _complete_mixtral
    if facts.find("expert_count") and not facts.number("expert_used_count"):
        raise ModelError(f"{file.path} lacks {facts.architecture}.expert_used_count in its metadata; download it again.")
    missing = [name for name in NEEDED if facts.number(name) is None]
    if missing:
        raise ModelError(f"{file.path} lacks {facts.architecture}.{missing[0]} in its metadata; download it again.")
    config: dict[str, Any] = {new: facts.number(name) for name, new in names.items() if facts.number(name) is not None}
    config |= {new: _read_token(file, name) for name, new in TOKENS.items()}
    config |= complete(facts)
    config["vocab_size"] = _read_vocabulary(facts)
    config["tie_word_embeddings"] = "output.weight" not in file.tensors
    _check_blocks(facts)
    return config


def _read_token(file: GgufFile, name: str) -> int | None:
    """The number of a special token; None, not the default of transformers, where the file names none."""
    value = file.metadata.get(f"tokenizer.ggml.{name}")
    return value if type(value) is int else None


def _read_vocabulary(facts: Metadata) -> int:
    """Rows of the token embedding, whose columns must be the width of the model."""
    embedding = facts.file.tensors.get("token_embd.weight")
    width = facts.number("embedding_length")
    if embedding is None or len(embedding.shape) != 2 or embedding.shape[1] != width:
        shape = "none" if embedding is None else list(embedding.shape)
        raise ModelError(
            f"{facts.file.path} has a token embedding of {shape}, but says embedding_length {width}; download it again."
        )
    return embedding.shape[0]


def _check_blocks(facts: Metadata) -> None:
    """ModelError where the file has another number of blocks than it says."""
    numbers = {int(match[1]) for match in map(BLOCK.match, facts.file.tensors) if match}
    announced = facts.number("block_count")
    if numbers != set(range(len(numbers))) or len(numbers) != announced:
        raise ModelError(f"{facts.file.path} says that it has {announced} blocks, but holds {len(numbers)}; download it again.")


def _complete_llama(facts: Metadata) -> dict[str, Any]:
    head = facts.number("attention.key_length") or facts.number("rope.dimension_count")
    fields = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": facts.has("attn_q.bias"),
        "mlp_bias": facts.has("ffn_gate.bias"),
        **_read_rope(facts),
    }
    return fields | ({"head_dim": head} if head else {})


def _complete_mixtral(facts: Metadata) -> dict[str, Any]:
    fields = _complete_llama(facts) | {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "sliding_window": None}
    return fields | {"num_local_experts": facts.number("expert_count"), "num_experts_per_tok": facts.number("expert_used_count")}


def _complete_qwen2_moe(facts: Metadata) -> dict[str, Any]:
    shared = {"shared_expert_intermediate_size": facts.number("expert_shared_feed_forward_length")}
    fields = _complete_qwen2(facts) | {"model_type": "qwen2_moe", "architectures": ["Qwen2MoeForCausalLM"]}
    return fields | shared | _read_experts(facts, normalized=False)


def _complete_qwen3_moe(facts: Metadata) -> dict[str, Any]:
    fields = _complete_qwen3(facts) | {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"]}
    return fields | _read_experts(facts, normalized=True)


def _read_experts(facts: Metadata, *, normalized: bool) -> dict[str, Any]:
    """The experts of Qwen's mixtures; whether the weights of those that are used add up to 1 is a rule of llama.cpp's code."""
    return {
        "num_experts": facts.number("expert_count"),
        "num_experts_per_tok": facts.number("expert_used_count"),
        "moe_intermediate_size": facts.number("expert_feed_forward_length"),
        "norm_topk_prob": normalized,
    }


def _complete_qwen2(facts: Metadata) -> dict[str, Any]:
    return {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "use_sliding_window": False, **_read_rope(facts)}


def _complete_qwen3(facts: Metadata) -> dict[str, Any]:
    bias = facts.has("attn_q.bias")
    return {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "attention_bias": bias, **_read_rope(facts)}


def _complete_gemma2(facts: Metadata) -> dict[str, Any]:
    fields = {"attn_logit_softcapping": "attn_logit_softcapping", "final_logit_softcapping": "final_logit_softcapping"}
    return {
        "model_type": "gemma2",
        "architectures": ["Gemma2ForCausalLM"],
        "query_pre_attn_scalar": _compute_attention_width(facts, GEMMA2_27B_BLOCKS),
        **{name: facts.number(name) for name in fields if facts.number(name) is not None},
        **_read_rope(facts),
    }


def _complete_gemma3(facts: Metadata) -> dict[str, Any]:
    theta, factor = facts.number("rope.freq_base") or 1e6, facts.number("rope.scaling.factor")
    scaled = {"rope_type": "linear", "factor": factor} if factor and factor != 1 else {"rope_type": "default"}
    return {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "query_pre_attn_scalar": _compute_attention_width(facts, GEMMA3_27B_BLOCKS),
        "rope_parameters": {
            "full_attention": {**scaled, "rope_theta": theta},
            "sliding_attention": {"rope_type": "default", "rope_theta": facts.number("rope.freq_base_swa") or 1e4},
        },
    }


def _compute_attention_width(facts: Metadata, largest: int) -> int:
    """The number whose root attention scores are divided by, which the file does not say: the width of a head, but of the largest
    model of the family its share of the residual stream."""
    width, heads = facts.number("embedding_length") or 0, facts.number("attention.head_count") or 1
    return int(
        width // heads if facts.number("block_count") == largest else facts.number("attention.key_length") or width // heads
    )


def _complete_phi3(facts: Metadata) -> dict[str, Any]:
    width, heads = facts.number("embedding_length") or 0, facts.number("attention.head_count") or 1
    turned, context = facts.number("rope.dimension_count"), facts.number("rope.scaling.original_context_length")
    fields: dict[str, Any] = {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"]}
    if turned:
        fields["partial_rotary_factor"] = turned / (width // heads)
    if context:
        fields["original_max_position_embeddings"] = context
    long, short = (f"rope_factors_{size}.weight" for size in ("long", "short"))
    if not facts.has(long):
        return fields | _read_rope(facts)
    factors = {f"{size}_factor": facts.file.read(name).tolist() for size, name in (("long", long), ("short", short))}
    return fields | {"rope_scaling": {"rope_type": "longrope", "type": "longrope", **factors}}


def _complete_gpt2(_facts: Metadata) -> dict[str, Any]:
    return {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}


def _read_rope(facts: Metadata) -> dict[str, Any]:
    """How rotary frequencies are scaled; ModelError for a kind that the file does not describe completely."""
    if facts.has("rope_freqs.weight"):
        return {"rope_scaling": _match_llama3(facts, facts.file.read("rope_freqs.weight"))}
    kind, factor = facts.find("rope.scaling.type") or "none", facts.number("rope.scaling.factor")
    if kind == "none" or factor in (None, 1.0):
        return {}
    context = facts.number("rope.scaling.original_context_length")
    if kind == "linear":
        return {"rope_scaling": {"rope_type": "linear", "factor": factor}}
    if kind == "yarn" and context:
        return {"rope_scaling": {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": context}}
    raise ModelError(
        f"{facts.file.path} scales its rotary frequencies by {shorten_value(kind)}, which is not read from GGUF; "
        f"give the folder of the original model in Hugging Face layout."
    )


def _match_llama3(facts: Metadata, divisors: Tensor) -> dict[str, Any]:
    """The scaling of Llama 3.1 and later, whose divisors of the frequencies are stored as a tensor `[head width / 2]`."""
    factor = float(divisors.max())
    theta = facts.number("rope.freq_base") or 1e4
    frequencies = theta ** -(torch.arange(0, 2 * len(divisors), 2, dtype=torch.float64) / (2 * len(divisors)))
    lengths = 2 * math.pi / frequencies
    smooth = (LLAMA3_CONTEXT / lengths - LLAMA3_LOW) / (LLAMA3_HIGH - LLAMA3_LOW)
    expected = 1 / ((1 - smooth) / factor + smooth)
    expected[lengths < LLAMA3_CONTEXT / LLAMA3_HIGH] = 1
    expected[lengths > LLAMA3_CONTEXT / LLAMA3_LOW] = factor
    if not torch.allclose(divisors.double(), expected, rtol=1e-4):
        raise ModelError(
            f"{facts.file.path} scales its rotary frequencies in a way of its own (rope_freqs.weight); "
            f"give the folder of the original model in Hugging Face layout."
        )
    return {
        "rope_type": "llama3",
        "factor": round(factor, 4),
        "low_freq_factor": LLAMA3_LOW,
        "high_freq_factor": LLAMA3_HIGH,
        "original_max_position_embeddings": LLAMA3_CONTEXT,
    }


ARCHITECTURES: dict[str, tuple[dict[str, str], Callable[[Metadata], dict[str, Any]]]] = {
    "llama": (COMMON, _complete_llama),  # Mistral 7B too, which llama.cpp calls so
    "qwen2": (COMMON, _complete_qwen2),
    "qwen2moe": (COMMON, _complete_qwen2_moe),
    "qwen3": (COMMON, _complete_qwen3),
    "qwen3moe": (COMMON, _complete_qwen3_moe),
    "gemma2": (COMMON | SLIDING, _complete_gemma2),
    "gemma3": (COMMON | SLIDING, _complete_gemma3),
    "phi3": ({name: new for name, new in COMMON.items() if new != "head_dim"} | SLIDING, _complete_phi3),
    "gpt2": (GPT2, _complete_gpt2),
}
