"""BitNet checkpoints: four weights of -1, 0 and 1 in a byte, from four quarters of the rows, and one scale a matrix."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from workbench.exchange.reading.coded_tensor import CodedTensor, Source
from workbench.exchange.reading.integer_codes import TritCodes

QUARTERS = 4


def find_weights(source: Source) -> list[CodedTensor]:
    """The packed weights of a BitNet checkpoint; ModelError for one whose layers normalise their inputs once more."""
    if source.settings.get("use_rms_norm"):
        raise source.describe("is BitNet with a norm inside each layer (use_rms_norm), which is not read")
    multiplies = source.settings.get("linear_class") == "autobitlinear"
    coded = []
    for owner, parts in source.group("weight_scale").items():
        chosen = source.take(owner, parts, ("weight", "weight_scale"))
        tensor = source.tensors[chosen["weight"]]
        if tensor.dtype != "uint8":
            raise source.describe(
                f"stores {chosen['weight']!r} as {tensor.dtype} beside a scale; packed BitNet weights are uint8"
            )
        rows, cols = tensor.shape
        decode, split = partial(decode_bitnet, multiplies=multiplies), partial(take_bitnet_codes, multiplies=multiplies)
        coded.append(CodedTensor(chosen["weight"], (rows * QUARTERS, cols), "BitNet ternary", chosen, decode, split=split))
    return coded


def decode_bitnet(parts: Mapping[str, Tensor], *, multiplies: bool) -> Tensor:
    """The weight `[rows, cols]` float32: a trit times the scale, or over it.

    Args:
        parts: `weight [rows / 4, cols]` uint8 and `weight_scale [1]`.
        multiplies: Whether the scale is that of the weights (`autobitlinear`), not the one that they were multiplied with.

    Returns:
        The values.
    """
    codes = take_bitnet_codes(parts, multiplies=multiplies)
    return codes.trits.float() * codes.scales


def take_bitnet_codes(parts: Mapping[str, Tensor], *, multiplies: bool) -> TritCodes:
    """The trits, with the scale of the matrix for each row."""
    scale = parts["weight_scale"].float().reshape(1, 1)
    trits = unpack_trits(parts["weight"])
    return TritCodes(trits, (scale if multiplies else 1 / scale).expand(len(trits), 1), trits.shape[1])


def unpack_trits(content: Tensor) -> Tensor:
    """Trits -1, 0 and 1 `[4 n, cols]` int8 of bytes `[n, cols]`: the lowest two bits are of the first quarter of the rows."""
    fields = content[None] >> torch.arange(0, 8, 2, dtype=torch.uint8)[:, None, None] & 3
    return fields.to(torch.int8).flatten(0, 1) - 1
