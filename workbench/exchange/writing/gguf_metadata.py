"""What GGUF says of a model beside its tensors, for Llama and its relatives; anything it cannot say is refused or told."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from workbench.errors import ArtifactError
from workbench.exchange.writing.source import Source

# transformers' types of models, by llama.cpp's name of the architecture that computes the same
ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
ROPE_TYPES = ("default", "linear", "llama3", "yarn")
ROPE_FREQUENCIES = "rope_freqs.weight"


def find_architecture(source: Source) -> str:
    """llama.cpp's name of the model's architecture; ArtifactError for other families, and for what they have that it has not."""
    config: Any = source.config
    kind = str(config.model_type)
    if kind not in ARCHITECTURES:
        names = ", ".join(ARCHITECTURES)
        raise ArtifactError(
            f"{source.name!r} is of type {kind!r}; only {names} can be written to GGUF here: export to hf instead."
        )
    if (activation := getattr(config, "hidden_act", "silu")) != "silu":
        raise ArtifactError(
            f"{source.name!r} has the activation {activation!r}, but llama.cpp computes silu; export to hf instead."
        )
    rope = _read_rope(config)
    if rope["rope_type"] not in ROPE_TYPES or rope.get("partial_rotary_factor", 1.0) != 1.0:
        what = f"{rope['rope_type']!r}, {rope.get('partial_rotary_factor', 1.0)} of each head"
        raise ArtifactError(f"{source.name!r} rotates by {what}; GGUF is written for {', '.join(ROPE_TYPES)} of a whole head.")
    return ARCHITECTURES[kind]


def add_metadata(writer: Any, source: Source, weights: str) -> list[str]:
    """Add a model's sizes to a GGUF writer, with the type of most weights; returns what is lost, in sentences."""
    import gguf

    config: Any = source.config
    head = get_head_size(config)
    context, notes = find_context(config)
    writer.add_name(source.name)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{weights}"] if weights != "F32" else gguf.LlamaFileType.ALL_F32)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    _add_rope(writer, _read_rope(config))
    return notes


def get_head_size(config: Any) -> int:
    """Numbers of one head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def find_context(config: Any) -> tuple[int, list[str]]:
    """The context in tokens; where attention sees a shorter window only, that window, with a sentence."""
    context, window = int(config.max_position_embeddings), getattr(config, "sliding_window", None)
    if not window or window >= context or not getattr(config, "use_sliding_window", True):
        return context, []
    return window, [f"Attention over a window of {window:,} tokens is not in GGUF: the context is that window, not {context:,}."]


def compute_rope_factors(source: Source) -> Tensor | None:
    """By how much each rotary frequency is divided, float32 `[head / 2]`, where the type is llama3; None otherwise."""
    config: Any = source.config
    rope = _read_rope(config)
    if rope["rope_type"] != "llama3":
        return None
    size = get_head_size(config)
    plain = float(rope["rope_theta"]) ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)
    length = 2 * math.pi / plain
    low, high = (float(rope[name]) for name in ("low_freq_factor", "high_freq_factor"))
    trained, factor = float(rope["original_max_position_embeddings"]), float(rope["factor"])
    smooth = ((trained / length - low) / (high - low)).clamp(0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).float()


def _read_rope(config: Any) -> Mapping[str, Any]:
    """How positions are rotated, as transformers holds it."""
    rope = dict(getattr(config, "rope_parameters", None) or {})
    return {"rope_type": "default", "rope_theta": getattr(config, "rope_theta", 10_000.0), **rope}


def _add_rope(writer: Any, rope: Mapping[str, Any]) -> None:
    """The base of the rotary frequencies and their scaling."""
    import gguf

    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if rope["rope_type"] == "yarn":
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(rope["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(rope["original_max_position_embeddings"]))
