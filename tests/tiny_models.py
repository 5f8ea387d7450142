"""Tiny random models of every supported family, written to disk in Hugging Face layout."""

import shutil
from collections.abc import Callable
from pathlib import Path

import torch

from workbench.models.builtin import BUILTIN_FOLDER

VOCABULARY = 512
SHAPE = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
FAMILIES = ["llama", "qwen2", "qwen3", "mistral", "gemma", "gemma3", "opt", "gpt2", "bert"]
CAUSAL = [family for family in FAMILIES if family != "bert"]


def tiny_module(family: str, blocks: int = 2, width: int = 64) -> torch.nn.Module:
    """A random model of one family: `blocks` blocks of `width`, the built-in model's vocabulary."""
    import transformers as t

    shape = {**SHAPE, "num_hidden_layers": blocks, "hidden_size": width, "intermediate_size": 2 * width}
    without = {name: value for name, value in shape.items() if name not in ("num_key_value_heads", "head_dim")}
    builders: dict[str, Callable[[], torch.nn.Module]] = {
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**shape)),
        "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**{k: v for k, v in shape.items() if k != "head_dim"})),
        "qwen3": lambda: t.Qwen3ForCausalLM(t.Qwen3Config(**shape)),
        "mistral": lambda: t.MistralForCausalLM(t.MistralConfig(**shape)),
        "gemma": lambda: t.GemmaForCausalLM(t.GemmaConfig(**shape)),
        "gemma3": lambda: t.Gemma3ForCausalLM(t.Gemma3TextConfig(**shape, sliding_window=32)),
        "opt": lambda: t.OPTForCausalLM(t.OPTConfig(**{**without, "ffn_dim": 2 * width, "word_embed_proj_dim": width})),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(
                vocab_size=VOCABULARY,
                n_embd=width,
                n_inner=2 * width,
                n_layer=blocks,
                n_head=4,
                n_positions=128,
                bos_token_id=1,
                eos_token_id=2,
            )
        ),
        "bloom": lambda: t.BloomForCausalLM(
            t.BloomConfig(vocab_size=VOCABULARY, hidden_size=width, n_layer=blocks, n_head=4, bos_token_id=1, eos_token_id=2)
        ),
        "bert": lambda: t.BertModel(t.BertConfig(**without)),
    }
    return builders[family]()


def write_model(family: str, folder: Path, shard_size: str = "1GB", seed: int = 0, *, blocks: int = 2, width: int = 64) -> Path:
    """Write a tiny random model of `family` with the built-in tokenizer; weights large enough that logits differ clearly."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = tiny_module(family, blocks, width)
        for parameter in module.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    module.save_pretrained(folder, max_shard_size=shard_size)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUILTIN_FOLDER / name, folder / name)
    return folder
