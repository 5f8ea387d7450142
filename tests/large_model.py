"""A random Llama of about a billion weights, written block by block: what does not fit into memory is tried on it."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from workbench.models.builtin import BUILTIN_FOLDER

WIDTH, INNER, KEY_WIDTH, VOCABULARY = 2048, 5632, 256, 32_000
SHAPES = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (KEY_WIDTH, WIDTH),
    "self_attn.v_proj": (KEY_WIDTH, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (INNER, WIDTH),
    "mlp.up_proj": (INNER, WIDTH),
    "mlp.down_proj": (WIDTH, INNER),
}


def write_large_model(folder: Path, blocks: int = 22) -> Path:
    """Write `blocks` blocks of 44 million weights each in bf16, one shard a block (2.2 GB at 22), with the built-in tokenizer.

    All blocks hold the same random values: what is measured is memory and time, not language.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": blocks,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BUILTIN_FOLDER / name, folder / name)
    draw = torch.Generator().manual_seed(0)
    block = {name: (torch.randn(shape, generator=draw) * 0.02).bfloat16() for name, shape in SHAPES.items()}
    outside = {
        "model.embed_tokens.weight": torch.randn(VOCABULARY, WIDTH, generator=draw).mul(0.02).bfloat16(),
        "lm_head.weight": torch.randn(VOCABULARY, WIDTH, generator=draw).mul(0.02).bfloat16(),
        "model.norm.weight": torch.ones(WIDTH, dtype=torch.bfloat16),
    }
    shards = {"outside.safetensors": outside}
    for number in range(blocks):
        prefix = f"model.layers.{number}"
        tensors = {f"{prefix}.{name}.weight": weight for name, weight in block.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{prefix}.{norm}.weight"] = torch.ones(WIDTH, dtype=torch.bfloat16)
        shards[f"block-{number:02}.safetensors"] = tensors
    for file, tensors in shards.items():
        save_file(tensors, folder / file, metadata={"format": "pt"})
    places = {name: file for file, tensors in shards.items() for name in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder
