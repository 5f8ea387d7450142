"""Trits (−1, 0, +1) packed five to a byte: 1.6 bits each, close to the lower bound log₂ 3 = 1.585.

Byte b of a stream holds trits 5b … 5b + 4 as t₀ + 3 t₁ + 9 t₂ + 27 t₃ + 81 t₄ with t = trit + 1; the last byte is filled up with
trits 0. The 13 byte values from 243 on are not used.
"""

import torch
from torch import Tensor

from workbench.errors import ShapeError

TRITS = 5  # of a byte
POWERS_OF_THREE = torch.tensor([1, 3, 9, 27, 81], dtype=torch.uint8)
# what each byte stands for, int8 [256, 5]
MEANING = (torch.arange(256)[:, None] // POWERS_OF_THREE.long() % 3 - 1).to(torch.int8)


def count_packed_bytes(count: int) -> int:
    """Bytes that `count` trits take."""
    return -(-count // TRITS)


def pack(trits: Tensor) -> Tensor:
    """Pack −1, 0 and +1 (any shape, read in row order) into uint8 `[packed_bytes]`; ShapeError for other numbers."""
    flat = trits.reshape(-1)
    if flat.numel() and int(flat.abs().max()) > 1:
        raise ShapeError(f"trits from {int(flat.min())} to {int(flat.max())}; they must be −1, 0 or +1.")
    padded = torch.nn.functional.pad(flat.to(torch.int8), (0, -flat.numel() % TRITS))
    return ((padded + 1).to(torch.uint8).view(-1, TRITS) * POWERS_OF_THREE.to(flat.device)).sum(1, dtype=torch.uint8)


def unpack(stream: Tensor, count: int) -> Tensor:
    """The first `count` trits of a stream made by `pack`, int8 `[count]`; ShapeError for one that is too short."""
    size = count_packed_bytes(count)
    if stream.numel() < size:
        raise ShapeError(f"{count} trits need {size} bytes; the stream has {stream.numel()}.")
    return MEANING.to(stream.device)[stream[:size].long()].view(-1)[:count]
