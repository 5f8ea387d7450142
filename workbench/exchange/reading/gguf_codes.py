"""The codes of those types of GGUF whose blocks are a grid of whole numbers, trits or signs with a 16-bit scale."""

import torch
from torch import Tensor

from workbench.exchange.reading.gguf_types import Q1_0, Q1_0_WEIGHTS, SCALE_BYTES, name_type
from workbench.exchange.reading.integer_codes import Codes, GridCodes, SignCodes, TritCodes

Q4_0, Q8_0, TQ1_0, TQ2_0 = 2, 8, 34, 35
SMALL, LARGE = 32, 256  # weights of a block
THREES = torch.tensor([1, 3, 9, 27, 81], dtype=torch.int32)
TQ1_0_BYTES = (32, 16, 4)  # of 160, 80 and 16 trits, which are 5, 5 and 4 to a byte


def take_gguf_codes(content: Tensor, kind: int, shape: tuple[int, ...]) -> Codes | str:
    """The codes of a matrix of a type, or the reason why they are none that are stored here.

    Args:
        content: The bytes of the tensor, uint8.
        kind: The number of its type.
        shape: Rows and columns.

    Returns:
        Codes with a scale a block.
    """
    if len(shape) != 2 or kind not in (Q4_0, Q8_0, TQ1_0, TQ2_0, Q1_0):
        return f"{name_type(kind)} is on no grid with a 16-bit scale a group"
    rows = shape[0]
    if kind in (TQ1_0, TQ2_0):
        blocks = content.view(-1, (52 if kind == TQ1_0 else 64) + SCALE_BYTES)
        trits = unpack_tq1(blocks[:, :52]) if kind == TQ1_0 else unpack_tq2(blocks[:, :64])
        return TritCodes(trits.view(shape), _read_scales(blocks[:, -SCALE_BYTES:], rows), LARGE)
    width = {Q4_0: SMALL // 2, Q8_0: SMALL, Q1_0: Q1_0_WEIGHTS // 8}[kind]
    blocks = content.view(-1, SCALE_BYTES + width)
    scales, stored = _read_scales(blocks[:, :SCALE_BYTES], rows), blocks[:, SCALE_BYTES:]
    if kind == Q1_0:
        signs = stored[:, :, None] >> torch.arange(8, dtype=torch.uint8) & 1
        return SignCodes(signs.reshape(shape), scales, Q1_0_WEIGHTS)
    if kind == Q4_0:
        codes, bits = torch.cat([stored & 15, stored >> 4], 1), 4
    else:
        codes, bits = stored.contiguous().view(torch.int8).int() + 128, 8
    return GridCodes(codes.reshape(shape).int(), torch.full(scales.shape, 1 << bits - 1), scales, bits, SMALL)


def _read_scales(content: Tensor, rows: int) -> Tensor:
    """Scales float32 `[rows, groups]` of their bytes, block after block."""
    return content.contiguous().view(torch.float16).float().view(rows, -1)


def unpack_tq2(content: Tensor) -> Tensor:
    """Trits int8 `[blocks, 256]` of bytes `[blocks, 64]`: of each 32 bytes the lowest two bits are the first 32 trits."""
    fields = content.view(-1, 2, 1, 32) >> torch.arange(0, 8, 2, dtype=torch.uint8)[:, None] & 3
    return fields.reshape(len(content), LARGE).to(torch.int8) - 1


def unpack_tq1(content: Tensor) -> Tensor:
    """Trits int8 `[blocks, 256]` of bytes `[blocks, 52]`, each a fraction of 256 whose digits to the base of three are trits."""
    pieces = []
    for part, digits in zip(content.split(TQ1_0_BYTES, 1), (5, 5, 4), strict=True):
        turned = part.int()[:, None] * THREES[:digits, None] % 256
        pieces.append((turned * 3 >> 8).flatten(1))
    return torch.cat(pieces, 1).to(torch.int8) - 1
