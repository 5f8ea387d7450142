"""The names that llama.cpp gives to the tensors of a model, by those of transformers."""

from typing import TYPE_CHECKING, Any

from workbench.errors import ModelError
from workbench.exchange.reading.gguf_types import import_gguf

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from workbench.models.handle import ModelHandle

# where transformers' model_type is another than llama.cpp's architecture
GGUF_NAMES = {
    "gemma3_text": "gemma3",
    "gpt_oss": "gpt-oss",
    "mistral": "llama",
    "mixtral": "llama",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
}


def build_name_table(config: "PretrainedConfig") -> Any:
    """The library's table for a configuration; ModelError for an architecture that llama.cpp has not."""
    gguf, text = import_gguf(), config.get_text_config()
    kind: Any = text.model_type
    numbers = {name: number for number, name in gguf.MODEL_ARCH_NAMES.items()}
    number = numbers.get(GGUF_NAMES.get(kind, kind))
    if number is None:
        raise ModelError(f"the installed gguf has no names for models of type {kind!r}; update gguf, or calibrate on text.")
    return gguf.get_tensor_name_map(number, text.num_hidden_layers)


def map_layer_names(model: "ModelHandle") -> dict[str, str]:
    """llama.cpp's name of the weight of each layer that has one: "blk.0.attn_q.weight"."""
    table = build_name_table(model.config)
    names = {layer: table.get_name(layer) for layer in (*model.layer_names, *model.optional_names)}
    return {layer: f"{name}.weight" for layer, name in names.items() if name is not None}
