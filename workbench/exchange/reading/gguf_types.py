"""The number types of GGUF: their size, their name, and their values as torch tensors.

The blocks of quantized types are decoded by the `gguf` library; Q1_0, which it knows but does not decode, is decoded here.
"""

import re
import warnings
from math import prod
from typing import Any

import torch
from torch import Tensor

from workbench.errors import ModelError

PLAIN = {0: torch.float32, 1: torch.float16, 24: torch.int8, 25: torch.int16, 26: torch.int32, 27: torch.int64,
         28: torch.float64, 30: torch.bfloat16}  # fmt: skip
Q1_0 = 41
Q1_0_WEIGHTS, SCALE_BYTES = 128, 2  # of a block: a scale in fp16, then a bit for each weight
MAX_NUMBER = 2**63 - 1


def import_gguf() -> Any:
    """The `gguf` library; ModelError with the command that installs it where it is missing."""
    try:
        import gguf
    except ImportError as error:
        raise ModelError(
            "a GGUF file needs the library gguf, which is not installed; run: pip install 'quantization-workbench[exchange]'."
        ) from error
    return gguf


def name_type(kind: int) -> str:
    """The name of a type: "Q4_K", "F16"."""
    return import_gguf().GGMLQuantizationType(kind).name


def count_bytes(kind: int, shape: tuple[int, ...], what: str) -> int:
    """Bytes of a tensor of a type; ModelError for an unknown type, or rows that are no whole number of blocks."""
    gguf = import_gguf()
    try:
        block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
    except (KeyError, ValueError) as error:
        raise ModelError(f"{what} is of the type {kind}, which the installed gguf does not know; update gguf.") from error
    if prod(shape) > MAX_NUMBER or shape[-1] % block:
        raise ModelError(f"{what} is {list(shape)}, whose rows are no whole number of blocks of {block} ({name_type(kind)}).")
    return prod(shape) // block * size


def decode(content: Tensor, kind: int, shape: tuple[int, ...]) -> Tensor:
    """The values of a tensor of `shape` from its bytes, uint8: plain types as they are, quantized ones float32."""
    if kind in PLAIN:
        return content.view(PLAIN[kind]).view(shape)
    if kind == Q1_0:
        return decode_q1_0(content).view(shape)
    gguf = import_gguf()
    with warnings.catch_warnings():  # of numbers that overflow: what is not finite is refused by whoever reads the weight
        warnings.simplefilter("ignore", RuntimeWarning)
        try:
            values = gguf.quants.dequantize(content.view(*shape[:-1], -1).numpy(), gguf.GGMLQuantizationType(kind))
        except NotImplementedError as error:
            raise ModelError(
                f"tensors of type {name_type(kind)} are not decoded by the installed gguf; it decodes {', '.join(list_types())}."
            ) from error
    return torch.from_numpy(values).view(shape)


def decode_q1_0(content: Tensor) -> Tensor:
    """Weights of Q1_0 `[blocks, 128]` float32: in each block a scale, then bits, the lowest first; 1 is +scale and 0 -scale."""
    blocks = content.view(-1, SCALE_BYTES + Q1_0_WEIGHTS // 8)
    scale = blocks[:, :SCALE_BYTES].contiguous().view(torch.float16).float()
    bits = blocks[:, SCALE_BYTES:, None] >> torch.arange(8, dtype=torch.uint8) & 1
    return torch.where(bits.flatten(1) == 1, scale, -scale)


def list_types() -> list[str]:
    """The names of all types that can be decoded."""
    gguf = import_gguf()
    names = {kind.name for kind in gguf.quants._type_traits} | {name_type(kind) for kind in (*PLAIN, Q1_0)}
    return sorted(names, key=lambda name: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)])
