"""HQQ checkpoints: codes in equal parts of the rows of a matrix `[groups, group size]`, real zero points, facts as tensors."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from workbench.exchange.reading.coded_tensor import CodedTensor, Source

NEEDED = ("W_q", "scale", "zero", "shape", "nbits", "axis")
HQQ_BITS = (1, 2, 3, 4, 8)
WORD_CODES = {3: 10}  # codes of 3 bits in a word of 32; others fill bytes
MAX_SIZE = 1 << 31


def find_weights(source: Source) -> list[CodedTensor]:
    """The weights of an HQQ checkpoint; ModelError where their scales are quantized too, or their facts do not fit."""
    coded = []
    for owner, parts in source.group("W_q").items():
        chosen = source.take(owner, parts, NEEDED)
        for name, size in (("shape", (2,)), ("nbits", ()), ("axis", ())):
            source.check_shape(chosen[name], size)
        facts = {name: source.read(chosen[name]).reshape(-1).tolist() for name in ("shape", "nbits", "axis")}
        shape, (bits,), (axis,) = facts["shape"], facts["nbits"], facts["axis"]
        if not all(0 < size < MAX_SIZE for size in shape) or bits not in HQQ_BITS or axis not in (0, 1):
            raise source.describe(f"says shape {shape}, nbits {bits}, axis {axis} for {owner!r}; download it again")
        if "view_as_float" in parts and int(source.read(parts["view_as_float"])):
            raise source.describe(f"stores the codes of {owner!r} as floats (view_as_float), which is not read")
        rows, cols = (int(size) for size in shape)
        packed = {name: chosen[name] for name in ("W_q", "scale", "zero")}
        _check_size(source, packed, rows * cols, int(bits), owner)
        decode = partial(decode_hqq, bits=int(bits), shape=(rows, cols))
        coded.append(CodedTensor(f"{owner}.weight", (rows, cols), f"HQQ {int(bits)} bits", packed, decode))
    return coded


def _check_size(source: Source, parts: Mapping[str, str], weights: int, bits: int, owner: str) -> None:
    """ModelError where the codes are too few, or the scales do not stand along one side of them."""
    (height, *widths), scales = source.tensors[parts["W_q"]].shape, source.tensors[parts["scale"]].shape
    count = WORD_CODES.get(bits, 8 // bits)
    source.check_shape(parts["zero"], scales)
    if len(widths) != 1 or weights % widths[0] or height != -(-weights // widths[0] // count):
        raise source.describe(f"stores {[height, *widths]} codes of {bits} bits for the {weights:,} weights of {owner!r}")
    if scales not in ((weights // widths[0], 1), (1, widths[0])):
        raise source.describe(f"stores scales of {list(scales)} for {owner!r}, whose codes are {[weights // widths[0], *widths]}")


def decode_hqq(parts: Mapping[str, Tensor], *, bits: int, shape: tuple[int, int]) -> Tensor:
    """The weight `shape` float32: scale · (code − zero point).

    Args:
        parts: `W_q [n, width]`, the codes of several rows in each of its rows, the first rows in the highest bits; `scale` and
            `zero`, a value a row of codes, or a value a column.
        bits: Bits of a code.
        shape: Rows and columns.

    Returns:
        The values.
    """
    content = parts["W_q"].to(torch.int32)
    count = WORD_CODES.get(bits, 8 // bits)
    shifts = torch.arange(count - 1, -1, -1)[:, None, None] * bits
    codes = (content >> shifts & (1 << bits) - 1).flatten(0, 1)[: shape[0] * shape[1] // content.shape[1]]
    return ((codes - parts["zero"].float()) * parts["scale"].float()).view(shape)
