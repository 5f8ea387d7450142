"""N:M sparsity codes: the index of a choice of n out of m neighbours among all C(m, n) bit patterns, ascending."""

import functools
import math

import torch
from torch import Tensor

from workbench.kernels.packing import bitpack


@functools.lru_cache(maxsize=64)
def list_patterns(n: int, m: int) -> Tensor:
    """All patterns of m bits with n ones, ascending, int64; bit j of a pattern is 1 where neighbour j is chosen."""
    return torch.tensor([pattern for pattern in range(1 << m) if pattern.bit_count() == n])


def compute_choice_width(n: int, m: int) -> int:
    """Bits of a choice."""
    return max(1, math.ceil(math.log2(math.comb(m, n))))


def pack(chosen: Tensor, n: int, m: int) -> Tensor:
    """Stream of one number for each m columns of `chosen` (bool `[rows, cols]`), of which n must be true.

    A shorter group at the end of a row holds min(n, its width); the missing columns count as chosen until there are n.
    """
    cols = chosen.shape[1]
    missing = -cols % m
    filler = max(n - (m - missing), 0) if missing else 0
    full = torch.nn.functional.pad(chosen, (0, missing))
    full[:, cols : cols + filler] = True
    patterns = (full.view(-1, m).to(torch.int64) << torch.arange(m)).sum(1)
    return bitpack.pack(torch.searchsorted(list_patterns(n, m), patterns), compute_choice_width(n, m))


def unpack(stream: Tensor, n: int, m: int, rows: int, cols: int) -> Tensor:
    """The inverse of `pack`, bool `[rows, cols]`."""
    numbers = bitpack.unpack(stream, compute_choice_width(n, m), rows * -(-cols // m)).to(torch.int64)
    patterns = list_patterns(n, m).to(stream.device)[numbers]
    full = patterns[:, None] >> torch.arange(m, device=stream.device) & 1
    return full.view(rows, -1)[:, :cols].bool()
