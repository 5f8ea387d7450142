"""GGUF files of tiny models, written as llama.cpp's converter writes them: its names, its order of rows, its metadata."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workbench.models.opening import BUILTIN_FOLDER

ARCHITECTURES = {
    "gemma3_text": "gemma3", "mistral": "llama", "mixtral": "llama", "qwen2_moe": "qwen2moe", "qwen3_moe": "qwen3moe"
}  # fmt: skip


def tiny(family: str, **fields: Any) -> nn.Module:
    """A random model of a family, wide enough for blocks of 256 weights."""
    import transformers as t

    shape = {
        "vocab_size": 512, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
        "tie_word_embeddings": False, **fields,
    }  # fmt: skip
    head = {**shape, "head_dim": 32}
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 256, "shared_expert_intermediate_size": 512}
    builders: dict[str, Callable[[], nn.Module]] = {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**shape)),
        "mistral": lambda: t.MistralForCausalLM(t.MistralConfig(**shape)),
        "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**shape)),
        "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**head)),
        "mixtral": lambda: t.MixtralForCausalLM(t.MixtralConfig(**shape, num_local_experts=4, num_experts_per_tok=2)),
        "qwen2moe": lambda: t.Qwen2MoeForCausalLM(t.Qwen2MoeConfig(**shape, **experts)),
        "qwen3moe": lambda: t.Qwen3MoeForCausalLM(t.Qwen3MoeConfig(**head, **experts, norm_topk_prob=True)),
        "gemma2": lambda: t.Gemma2ForCausalLM(
            t.Gemma2Config(**{**head, "query_pre_attn_scalar": 32, "sliding_window": 16, "tie_word_embeddings": True})
        ),
        "gemma3": lambda: t.Gemma3ForCausalLM(
            t.Gemma3TextConfig(**{**head, "query_pre_attn_scalar": 32, "sliding_window": 16, "tie_word_embeddings": True})
        ),
        "phi3": lambda: t.Phi3ForCausalLM(t.Phi3Config(**{"original_max_position_embeddings": 128, **shape})),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(
                vocab_size=512, n_embd=256, n_inner=512, n_layer=2, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2
            )
        ),
    }
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = builders[family]().eval()
        for parameter in module.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return module


def write_gguf(
    module: nn.Module,
    path: Path,
    kind: str = "F32",
    *,
    choose: Callable[[str], str] | None = None,
    tokenizer: bool = True,
    split: int = 0,
    **metadata: Any,
) -> Path:
    """Write a module's tensors in a type, matrices only; `choose` gives another type by the tensor's GGUF name.

    With `split` into files of so many tensors at most.
    """
    import gguf

    config: Any = module.config
    name = ARCHITECTURES.get(config.model_type, config.model_type)
    writer = gguf.GGUFWriter(path, name, split_max_tensors=split)
    for key, value in {**describe(config), **metadata}.items():
        add = (
            writer.add_float32 if isinstance(value, float) else writer.add_string if isinstance(value, str) else writer.add_uint32
        )
        add(key if key.startswith("split.") else f"{name}.{key}", value)
    if tokenizer:
        add_tokenizer(writer)
    table = gguf.get_tensor_name_map({v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[name], config.num_hidden_layers)
    for key, tensor in separate_experts(module.state_dict()).items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        owner, _, leaf = key.rpartition(".")
        stored = f"{table.get_name(owner)}.{leaf}"
        values = rearrange(config, stored, tensor.float()).contiguous().numpy()
        wanted = (choose(stored) if choose else kind) if values.ndim > 1 and "ffn_gate_inp" not in stored else "F32"
        add_values(writer, stored, values, gguf.GGMLQuantizationType[wanted])
    if getattr(config, "rope_parameters", None) and config.rope_parameters.get("rope_type") == "llama3":
        add_values(writer, "rope_freqs.weight", llama3_divisors(config), gguf.GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def describe(config: Any) -> dict[str, Any]:
    """The metadata of a configuration without the architecture's name before each key."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    facts: dict[str, Any] = {
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers,
        "feed_forward_length": getattr(config, "intermediate_size", None) or config.n_inner,
        "attention.head_count": config.num_attention_heads,
        "attention.key_length": head,
    }
    if config.model_type == "gpt2":
        return facts | {"attention.layer_norm_epsilon": config.layer_norm_epsilon}
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    facts |= {
        "attention.head_count_kv": config.num_key_value_heads,
        "attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "rope.freq_base": float(rope["rope_theta"]),
        "rope.dimension_count": head,
    }
    for key in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, key, None):
            facts[key] = float(getattr(config, key))
    if config.model_type.startswith("gemma"):
        facts["attention.sliding_window"] = config.sliding_window
    if getattr(config, "num_experts_per_tok", None):
        count = getattr(config, "num_local_experts", None) or config.num_experts
        facts |= {"expert_count": count, "expert_used_count": config.num_experts_per_tok}
    if getattr(config, "moe_intermediate_size", None):
        facts["expert_feed_forward_length"] = config.moe_intermediate_size
    if getattr(config, "shared_expert_intermediate_size", None):
        facts["expert_shared_feed_forward_length"] = config.shared_expert_intermediate_size
    return facts


def separate_experts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with gates and ups of experts apart, as checkpoints have them."""
    separate: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith("experts.gate_up_proj"):
            path = name.removesuffix("gate_up_proj")
            separate |= dict(zip((f"{path}gate_proj.weight", f"{path}up_proj.weight"), tensor.chunk(2, dim=1), strict=True))
        else:
            separate[f"{name}.weight" if name.endswith("experts.down_proj") else name] = tensor
    return separate


def rearrange(config: Any, name: str, tensor: Tensor) -> Tensor:
    """What the converter changes: rows of queries and keys of Llama, norms of Gemma, transposed matrices of GPT-2."""
    if name.endswith("ffn_gate_inp_shexp.weight"):
        return tensor.squeeze()
    if config.model_type in ("llama", "mistral", "mixtral") and (".attn_q." in name or ".attn_k." in name):
        heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
        return tensor.reshape(heads, 2, -1, *tensor.shape[1:]).swapaxes(1, 2).reshape(tensor.shape)
    if config.model_type.startswith("gemma") and name.endswith("norm.weight"):
        return tensor + 1
    if config.model_type == "gpt2" and name.rsplit(".", 2)[-2] in ("attn_qkv", "attn_output", "ffn_up", "ffn_down"):
        return tensor.T if tensor.ndim == 2 else tensor
    return tensor


def llama3_divisors(config: Any) -> np.ndarray:
    """What transformers divides the rotary frequencies of Llama 3.1 by."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    head = config.hidden_size // config.num_attention_heads
    plain = config.rope_parameters["rope_theta"] ** -(torch.arange(0, head, 2).float() / head)
    return (plain / scaled).float().numpy()


def add_values(writer: Any, name: str, values: np.ndarray, kind: Any) -> None:
    """A tensor in its type: by the library's quantizer, or as random blocks of a type that it only decodes."""
    import gguf

    if kind.name in ("F32", "F16"):
        writer.add_tensor(name, values.astype({"F32": np.float32, "F16": np.float16}[kind.name]))
        return
    try:
        blocks = gguf.quants.quantize(values, kind)
    except NotImplementedError:
        blocks = random_blocks(kind, values.shape)
    writer.add_tensor(name, blocks, raw_dtype=kind)


def random_blocks(kind: Any, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random bytes of a type whose 16-bit scales are small numbers: bytes of a pattern that no scale can be infinite of."""
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[kind]
    return np.random.default_rng(seed).integers(0, 0x30, (*shape[:-1], shape[-1] // block * size), dtype=np.uint8)


def add_tokenizer(writer: Any) -> None:
    """The built-in model's vocabulary, as the converter writes one of SentencePiece: tokens, scores and types, no merges."""
    document = json.loads((BUILTIN_FOLDER / "tokenizer.json").read_text())
    vocabulary = document["model"]["vocab"]
    merged = ["".join(merge) if isinstance(merge, list) else merge.replace(" ", "") for merge in document["model"]["merges"]]
    ranks = {token: -float(rank) for rank, token in reversed(list(enumerate(merged)))}
    tokens = sorted(vocabulary, key=vocabulary.get)
    types = [
        2 if token == "<unk>" else 3 if token in ("<s>", "</s>") else 6 if token.startswith("<0x") else 1 for token in tokens
    ]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([ranks.get(token, -1e6) for token in tokens])
    writer.add_token_types(types)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
