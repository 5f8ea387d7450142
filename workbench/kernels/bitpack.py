"""Integers in as many bits as they need: one flat little-endian bit stream, padded to a whole byte at its very end.

Code i of width b occupies bits i·b … i·b+b−1 of the stream; bit k of the stream is bit k mod 8 of byte k // 8:

    width 3, codes 5 1 6   →   101 001 110  (each code read from its high bit)
    stream, low bit first  →   1 0 1 1 0 0 0 1 | 1 0 0 0 0 0 0 0   = bytes 0x8D 0x01
"""

import torch
from torch import Tensor

from workbench.errors import ShapeError

MAX_WIDTH = 24
_CHUNK = 1 << 20  # codes handled at a time, so that the widened bits stay small


def packed_bytes(count: int, width: int) -> int:
    """Bytes that `count` codes of `width` bits take."""
    return (count * width + 7) // 8


def pack(codes: Tensor, width: int) -> Tensor:
    """Pack non-negative integers (any shape, read in row order) into a uint8 stream of `packed_bytes` bytes."""
    flat = codes.reshape(-1).to(torch.int64)
    if not 1 <= width <= MAX_WIDTH:
        raise ShapeError(f"codes of {width} bits cannot be packed; use 1 to {MAX_WIDTH} bits.")
    if flat.numel() and (int(flat.min()) < 0 or int(flat.max()) >> width):
        raise ShapeError(f"codes from {int(flat.min())} to {int(flat.max())} do not fit {width} bits (0 to {(1 << width) - 1}).")
    out = torch.empty(packed_bytes(flat.numel(), width), dtype=torch.uint8)
    lanes = torch.arange(width)
    weights = (1 << torch.arange(8)).to(torch.uint8)
    for start in range(0, flat.numel(), _CHUNK):  # _CHUNK is a multiple of 8: every chunk begins on a byte
        piece = flat[start : start + _CHUNK]
        bits = ((piece[:, None] >> lanes) & 1).to(torch.uint8).reshape(-1)
        bits = torch.nn.functional.pad(bits, (0, -len(bits) % 8))
        begin = start * width // 8
        out[begin : begin + len(bits) // 8] = (bits.view(-1, 8) * weights).sum(1, dtype=torch.uint8)
    return out


def unpack(stream: Tensor, width: int, count: int) -> Tensor:
    """The first `count` codes of a stream made by `pack`, as int32 `[count]`."""
    if stream.numel() < packed_bytes(count, width):
        raise ShapeError(f"{count} codes of {width} bits need {packed_bytes(count, width)} bytes; the stream has {stream.numel()}.")
    if width == 8:
        return stream[:count].to(torch.int32)
    out = torch.empty(count, dtype=torch.int32)
    bit = torch.arange(8, dtype=torch.uint8)
    lanes = 1 << torch.arange(width, dtype=torch.int32)
    for start in range(0, count, _CHUNK):
        size = min(_CHUNK, count - start)
        begin = start * width // 8
        raw = stream[begin : begin + packed_bytes(size, width)]
        bits = ((raw[:, None] >> bit) & 1).reshape(-1)[: size * width].view(size, width)
        out[start : start + size] = (bits.to(torch.int32) * lanes).sum(1, dtype=torch.int32)
    return out
