"""The methods whose checkpoints are read, by the name that `quantization_config` gives them."""

from collections.abc import Callable, Mapping
from typing import Any

from workbench.exchange.reading import awq, bitnet, bitsandbytes, compressed_tensors, fp8, gptq, hqq, microscaling
from workbench.exchange.reading.coded_tensor import CodedTensor, Source
from workbench.json_value import shorten_value

METHODS: dict[str, Callable[[Source], list[CodedTensor]]] = {
    "awq": awq.find_weights,
    "bitnet": bitnet.find_weights,
    "bitsandbytes": bitsandbytes.find_weights,
    "compressed-tensors": compressed_tensors.find_weights,
    "fbgemm_fp8": fp8.find_weights,
    "fp8": fp8.find_weights,
    "gptq": gptq.find_weights,
    "hqq": hqq.find_weights,
    "mxfp4": microscaling.find_weights,
}


def find_coded(source: Source) -> list[CodedTensor]:
    """The coded weights of a checkpoint.

    Args:
        source: Its tensors and the fields of its `quantization_config`.

    Returns:
        Every weight that must be decoded; none shares a part with another.

    Raises:
        ModelError: Where the method is not read, or the tensors contradict its settings.
    """
    method = name_method(source.settings)
    if method not in METHODS:
        raise source.describe(
            f"is already quantized ({shorten_value(method) if method else 'an unnamed method'}), and what can be read is "
            f"{', '.join(METHODS)}: open the original model instead"
        )
    return METHODS[method](source)


def describe_rounded_inputs(settings: Mapping[str, Any]) -> str:
    """To what the inputs of coded layers are rounded where such a model runs, "8-bit floats"; empty where they are not."""
    method = name_method(settings)
    if method in ("fp8", "fbgemm_fp8"):
        return "8-bit floats"
    if method == "bitnet" or (method == "bitsandbytes" and settings.get("load_in_8bit")):
        return "8-bit integers"
    groups = settings.get("config_groups")
    for group in groups.values() if method == "compressed-tensors" and isinstance(groups, dict) else ():
        inputs = group.get("input_activations") if isinstance(group, dict) else None
        if isinstance(inputs, dict):
            kind = {"int": "integers", "float": "floats"}.get(str(inputs.get("type")), "numbers")
            return f"{shorten_value(inputs.get('num_bits'))}-bit {kind}"
    return ""


def name_method(settings: Any) -> str | None:
    """The method of a `quantization_config`; bitsandbytes did not always write its name."""
    method = next((settings[key] for key in ("quant_method", "quant_type", "quant_algo", "format") if settings.get(key)), None)
    if settings.get("load_in_4bit") or settings.get("load_in_8bit"):
        return "bitsandbytes"
    return method if isinstance(method, str) else None
