"""Checks of config.json before transformers reads it, with one sentence for each error."""

from pathlib import Path
from typing import Any

from workbench.errors import ModelError
from workbench.json_value import parse, read_content, shorten_value

QUANT_METHOD = "quantization-workbench"  # what config.json of a model that was saved here calls its quantization
SIZES = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
QUANTIZATION = ("quantization_config", "compression_config")
METHOD = ("quant_method", "quant_type", "quant_algo", "format")


def read_fields(path: Path) -> dict[str, Any]:
    """The fields of a config.json; ModelError unless it is a JSON object with a usable type, sizes and classes."""
    content = read_content(path, str(path), ModelError)
    if not content.strip():
        raise ModelError(f"{path} is empty; download it again.")
    fields = parse(content, str(path), ModelError, foreign=True).value
    if not isinstance(fields, dict):
        raise ModelError(f"{path} is not a JSON object but {_describe_json_type(fields)}; download it again.")
    _check_types(path, fields)
    return fields


def _check_types(path: Path, fields: dict[str, Any]) -> None:
    """ModelError for values that transformers takes without a word or turns away with a riddle."""
    model_type, architectures = fields.get("model_type"), fields.get("architectures")
    if not isinstance(model_type, str | None):
        raise ModelError(f"{path} says model_type {shorten_value(model_type)}; it must be a name, such as 'llama'.")
    if architectures is not None and not (
        isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)
    ):
        raise ModelError(
            f"{path} says architectures {shorten_value(architectures)}; it must be a list of names, such as ['LlamaForCausalLM']."
        )
    for name in SIZES:
        value = fields.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise ModelError(f"{path} says {name} {shorten_value(value)}; it must be at least 1.")


def check_not_quantized(path: Path, fields: dict[str, Any]) -> None:
    """ModelError where the configuration says that the weights are quantized; a null says that they are not."""
    settings = find_quantization(path, fields)
    if settings is not None:
        method = next((settings[key] for key in METHOD if settings.get(key)), "an unnamed method")
        raise ModelError(f"{path.parent} is already quantized ({method}); open the original model instead.")


def find_quantization(path: Path, fields: dict[str, Any]) -> dict[str, Any] | None:
    """What the configuration says about the quantization of the weights, None where they are not quantized.

    Raises ModelError where it is no object, or the folder is one that was saved here.
    """
    for holder in (fields, *(part for part in fields.values() if isinstance(part, dict))):
        for name in QUANTIZATION:
            settings = holder.get(name)
            if settings is None:
                continue
            if not isinstance(settings, dict):
                raise ModelError(
                    f"{path} says {name} {shorten_value(settings)}; it must be an object or null: download the file again."
                )
            if QUANT_METHOD in (settings.get(key) for key in METHOD):
                saved = path.parent
                raise ModelError(f"{saved} is a quantized model that was saved by wb.save; load it with wb.load({str(saved)!r}).")
            return settings
    return None


def _describe_json_type(value: Any) -> str:
    """What JSON calls a value that is not an object."""
    names = {list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
