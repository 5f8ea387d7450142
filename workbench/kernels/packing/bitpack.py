"""Integers in as many bits as they need: one flat little-endian bit stream, padded to a whole byte at its very end.

Code i of width b occupies bits i·b … i·b+b−1 of the stream; bit k of the stream is bit k mod 8 of byte k // 8:

    width 3, codes 5 1 6   →   101 001 110  (each code read from its high bit)
    stream, low bit first  →   1 0 1 1 0 0 0 1 | 1 0 0 0 0 0 0 0   = bytes 0x8D 0x01

Eight codes always end on a byte, so both directions work on blocks of 8 codes = `width` bytes, one of the 8 lanes at a time.
"""

import torch
from torch import Tensor

from workbench.errors import ShapeError

MAX_WIDTH = 24


def count_packed_bytes(count: int, width: int) -> int:
    """Bytes that `count` codes of `width` bits take."""
    return (count * width + 7) // 8


def pack(codes: Tensor, width: int) -> Tensor:
    """Pack non-negative integers (any shape, read in row order) into a uint8 stream of `count_packed_bytes` bytes.

    Raises ShapeError for a width outside 1 to 24 and for codes that do not fit it.
    """
    _check_width(width)
    flat = codes.reshape(-1)
    flat = flat.to(torch.uint8) if flat.dtype == torch.bool else flat
    count = flat.numel()
    if count and (int(flat.min()) < 0 or int(flat.max()) >> width):
        raise ShapeError(f"codes from {int(flat.min())} to {int(flat.max())} do not fit {width} bits (0 to {(1 << width) - 1}).")
    blocks = torch.nn.functional.pad(flat, (0, -count % 8)).view(-1, 8)
    out = torch.zeros(len(blocks), width, dtype=torch.uint8, device=codes.device)
    for lane in range(8):
        code = blocks[:, lane].to(torch.int32)
        for byte, shift in _list_byte_pieces(lane, width):
            moved = code << -shift if shift < 0 else code >> shift
            out[:, byte] |= (moved & 255).to(torch.uint8)
    return out.view(-1)[: count_packed_bytes(count, width)].clone()


def unpack(stream: Tensor, width: int, count: int) -> Tensor:
    """The first `count` codes of a stream made by `pack`, as int32 `[count]`.

    Raises ShapeError for a width outside 1 to 24 and for a stream that is too short.
    """
    _check_width(width)
    size = count_packed_bytes(count, width)
    if stream.numel() < size:
        raise ShapeError(f"{count} codes of {width} bits need {size} bytes; the stream has {stream.numel()}.")
    used = stream[:size]
    if 8 % width == 0:  # no code lies in two bytes
        shifts = torch.arange(0, 8, width, dtype=torch.uint8, device=stream.device)
        return (used[:, None] >> shifts & ((1 << width) - 1)).view(-1)[:count].to(torch.int32)
    blocks = torch.nn.functional.pad(used, (0, -size % width)).view(-1, width).to(torch.int32)
    out = torch.empty(len(blocks), 8, dtype=torch.int32, device=stream.device)
    for lane in range(8):
        code = torch.zeros(len(blocks), dtype=torch.int32, device=stream.device)
        for byte, shift in _list_byte_pieces(lane, width):
            code |= blocks[:, byte] >> -shift if shift < 0 else blocks[:, byte] << shift
        out[:, lane] = code & ((1 << width) - 1)
    return out.view(-1)[:count]


def take(stream: Tensor, width: int, positions: Tensor) -> Tensor:
    """The codes number `positions [n]` of a stream made by `pack`, as int32 `[n]`; nothing else is unpacked."""
    _check_width(width)
    first = positions * width
    code = torch.zeros(len(positions), dtype=torch.int64, device=stream.device)
    for byte in range((width + 14) // 8):  # a code begins inside one byte and may end so many later
        byte_index = (first // 8 + byte).clamp(max=max(stream.numel() - 1, 0))
        code |= stream[byte_index].to(torch.int64) << 8 * byte
    return (code >> first % 8).bitwise_and((1 << width) - 1).to(torch.int32)


def _list_byte_pieces(lane: int, width: int) -> list[tuple[int, int]]:
    """Which bytes of a block hold a part of code `lane`, each with the position in the code of the byte's bit 0."""
    first = lane * width
    return [(byte, 8 * byte - first) for byte in range(first // 8, (first + width - 1) // 8 + 1)]


def _check_width(width: int) -> None:
    """Raise ShapeError unless codes of `width` bits can be packed."""
    if not 1 <= width <= MAX_WIDTH:
        raise ShapeError(f"codes of {width} bits cannot be packed; use 1 to {MAX_WIDTH} bits.")
