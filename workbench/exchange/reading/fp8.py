"""8-bit floats with scales: a scale a block of 128 × 128 weights (DeepSeek), a row, or a matrix."""

from collections.abc import Mapping
from functools import partial

from torch import Tensor

from workbench.exchange.reading.coded_tensor import CodedTensor, Source

SCALES = ("weight_scale_inv", "weight_scale")  # both are multiplied with
DTYPES = ("float8_e4m3fn", "float8_e5m2")


def find_weights(source: Source) -> list[CodedTensor]:
    """The weights of a checkpoint of 8-bit floats; ModelError where one has no scale, or scales that do not fit."""
    coded = []
    for name, tensor in source.tensors.items():
        if tensor.dtype not in DTYPES:
            continue
        owner = name.removesuffix(".weight")
        scale = next((f"{owner}.{leaf}" for leaf in SCALES if f"{owner}.{leaf}" in source.tensors), None)
        scale = scale or next(
            (f"{name}{suffix}" for suffix in ("_scale_inv", "_scale") if f"{name}{suffix}" in source.tensors), None
        )
        if scale is None or len(tensor.shape) < 2:
            raise source.describe(f"has no scale for {name!r}, without which its 8-bit floats are meaningless: it is incomplete")
        block = _read_block(source, tensor.shape, source.tensors[scale].shape, scale)
        stacked = len(tensor.shape) > 2 and source.tensors[scale].shape[:1] == tensor.shape[:1]
        parts = {"weight": name, "scale": scale}
        coded.append(CodedTensor(name, tensor.shape, "FP8", parts, partial(decode_fp8, block=block), stacked=stacked))
    return coded


def _read_block(source: Source, shape: tuple[int, ...], scales: tuple[int, ...], name: str) -> tuple[int, int]:
    """Rows and columns of weights that share a scale; the last block may be cut off."""
    rows, cols = shape[-2:]
    if not scales or set(scales) == {1}:
        return rows, cols
    block = source.settings.get("weight_block_size")
    if isinstance(block, list | tuple) and len(block) == 2 and all(type(size) is int and size > 0 for size in block):
        height, width = block
        if tuple(scales[-2:]) == (-(-rows // height), -(-cols // width)):
            return height, width
    if scales == (rows,) or scales[-2:] == (rows, 1):
        return 1, cols
    if len(scales) == len(shape) and scales[-2:] == (1, 1):
        return rows, cols
    raise source.describe(f"stores scales {name!r} as {list(scales)} for a weight of {list(shape)}; they do not fit")


def decode_fp8(parts: Mapping[str, Tensor], block: tuple[int, int]) -> Tensor:
    """The weight `[…, rows, cols]` float32: 8-bit float · scale of its block.

    Args:
        parts: `weight [..., rows, cols]`, and `scale`, one for each block, or one alone.
        block: Rows and columns of a block.

    Returns:
        The values.
    """
    weight, scale = parts["weight"].float(), parts["scale"].float()
    if scale.numel() == 1:
        return weight * scale.reshape(())
    rows, cols = weight.shape[-2:]
    scale = scale[..., None] if scale.ndim < weight.ndim else scale
    spread = scale.repeat_interleave(block[0], -2).repeat_interleave(block[1], -1)
    return weight * spread[..., :rows, :cols]
