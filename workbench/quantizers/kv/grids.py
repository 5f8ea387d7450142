"""Blocks of a cache on grids: scales for each row or column, with more bits for some rows."""

import torch
from torch import Tensor

from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.quantizers.coders.fitting.column_groups import compute_group_span
from workbench.quantizers.coders.sign import Sign
from workbench.quantizers.coders.uniform import Uniform
from workbench.quantizers.contract import SpanT, UnsharedCoder
from workbench.quantizers.storage_rounding import round_to_fp16

KEPT_BITS = 16  # bits of a value that is kept


def pack_with_coder(coder: UnsharedCoder[SpanT], x: Tensor) -> Packed:
    """`x [rows, cols]` by a coder, nearest codes, span by span."""
    span, codes, params = coder.span(x.shape[1]), [], []
    for start in range(0, x.shape[1], span):
        piece = x[:, start : start + span]
        params.append(coder.fit(piece, torch.ones_like(piece, dtype=torch.bool), None, None).params)
        codes.append(coder.encode(piece, params[-1], slice(0, piece.shape[1])))
    return coder.pack(torch.cat(codes, 1), params, None, (x.shape[0], x.shape[1]))


def pack_float16(x: Tensor) -> Packed:
    """Kept in fp16."""
    return Packed("dense", x.shape[0], x.shape[1], {"weight": round_to_fp16(x).half()})


def pack_by_rows(x: Tensor, bits: int, group: int = 0) -> Packed:
    """A scale for each row and `group` of columns (0: the whole row).

    2 to 8 bits: a grid from the group's least to its largest value, both ends stored in fp16. 1 bit: mean ± size. 16: kept.
    """
    if bits == KEPT_BITS:
        return pack_float16(x)
    if bits == 1:
        return pack_with_coder(Sign(scales="group", group=group, sweeps=0), x)
    span = compute_group_span(group, x.shape[1])
    lowest = torch.stack([round_to_fp16(piece.amin(1)) for piece in x.split(span, 1)], 1)
    above = x - lowest.repeat_interleave(span, 1)[:, : x.shape[1]]
    inner = pack_with_coder(Uniform(bits=bits, group=group), above)
    return Packed("offset", x.shape[0], x.shape[1], {"offset": lowest.half()}, {"span": span}, (inner,))


def pack_by_columns(x: Tensor, bits: int) -> Packed:
    """A scale for each column, over all rows of the block."""
    return pack_transposed(pack_by_rows(x.T, bits))


def pack_transposed(inner: Packed) -> Packed:
    """The stored form of the transposed matrix."""
    return Packed("transposed", inner.cols, inner.rows, children=(inner,))


def select_highest(score: Tensor, share: float) -> Tensor:
    """Mask of the `share` with the highest scores, ties by place."""
    mask = torch.zeros(len(score), dtype=torch.bool)
    mask[torch.argsort(score, descending=True, stable=True)[: round(share * len(score))]] = True
    return mask


def split_rows(mask: Tensor, first: Packed, second: Packed) -> Packed:
    """One matrix of two: rows of `second` where the mask is true."""
    return Packed("rows", len(mask), first.cols, {"map": bitpack.pack(mask, 1)}, children=(first, second))
