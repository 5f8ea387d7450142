"""Weights quantized by another program: they are meaningless without their scales, so opening them is an error."""

from torch import nn

from workbench.errors import ModelError
from workbench.models.checkpoint import Checkpoint

FLOAT_DTYPES = {"float64", "float32", "float16", "bfloat16"}
INTEGERS = {"I8": "int8", "U8": "uint8", "I16": "int16", "U16": "uint16", "I32": "int32", "U32": "uint32", "I64": "int64"}
WEIGHT_NAMES = ("weight", "qweight", "weight_packed", "packed_weight", "weight_int8", "_blocks")
SCALE_NAMES = ("scale", "scales", "scale_inv", "absmax", "scb", "quant_map", "zeros", "zero_point")


def check_plain_weights(module: nn.Module, checkpoint: Checkpoint) -> None:
    """ModelError where the checkpoint stores weights as 8-bit floats or integers; integers in the module's buffers are fine."""
    suspects = [name for name, entry in checkpoint.entries.items() if entry.dtype not in FLOAT_DTYPES]
    if not suspects:
        return
    prefix = getattr(module, "base_model_prefix", "")
    weights = _list_aliases(prefix, *(name for name, parameter in module.named_parameters() if parameter.is_floating_point()))
    buffers = _list_aliases(prefix, *(name for name, _ in module.named_buffers()))
    scaled = {name.rpartition(".")[0] for name in checkpoint.entries if _is_scale(name)}
    candidates = [name for name in suspects if name not in buffers and (name in weights or not _is_scale(name))]
    quantized = [name for name in candidates if _is_weight(name, checkpoint, weights, scaled)]
    if quantized:
        dtype = checkpoint.entries[quantized[0]].dtype
        alike = sum(checkpoint.entries[name].dtype == dtype for name in quantized)
        raise ModelError(
            f"{checkpoint.folder} stores {alike} weights as {INTEGERS.get(dtype, dtype)}, first {quantized[0]!r}: it is already "
            f"quantized, and its codes are meaningless without their scales; open the original model instead."
        )


def _is_weight(name: str, checkpoint: Checkpoint, weights: set[str], scaled: set[str]) -> bool:
    """Whether a tensor of another type than plain floats stands for a weight."""
    entry = checkpoint.entries[name]
    if name in weights or entry.dtype.lower().startswith(("float", "f8", "f6", "f4")):
        return True
    owner, _, leaf = name.rpartition(".")
    return len(entry.shape) > 1 and (leaf.endswith(WEIGHT_NAMES) or name in scaled or owner in scaled)


def _is_scale(name: str) -> bool:
    """Whether a tensor's last name is one that quantizers give their scales."""
    return name.rpartition(".")[2].lower().endswith(SCALE_NAMES)


def _list_aliases(prefix: str, *names: str) -> set[str]:
    """Names with and without the base model's prefix."""
    return {alias for name in names for alias in (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}")}
