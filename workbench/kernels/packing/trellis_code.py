"""States of a bitshift trellis and their values; the format `trellis` defines what is stored."""

import functools
import math

import torch
from torch import Tensor

UINT32_MASK = 0xFFFFFFFF
HASH = ((0x9E3779B1, 15), (0x2C1B3C6D, 12), (0x297A2D39, 15))
DEVIATION = math.sqrt(4 * (256**2 - 1) / 12)  # of the sum of four evenly spread bytes: √21845
NEVER = 1e30  # cost of a state that cannot be


@functools.lru_cache(maxsize=16)
def compute_state_values(state: int, length: int) -> Tensor:
    """What each of the 2^`state` states stands for, float32 `[2^state, length]`."""
    x = torch.arange(1, (length << state) + 1)
    for factor, shift in HASH:
        x = x * factor & UINT32_MASK
        x = x ^ x >> shift
    total = (x[:, None] >> torch.tensor([0, 8, 16, 24]) & 255).sum(1)
    return ((total - 510) / DEVIATION).to(torch.float32).view(-1, length)


def compute_states(codes: Tensor, bits: int, state: int) -> Tensor:
    """The states `[steps, n]` of n rings of `codes [steps, n]`, int64: step t knows the codes of the steps up to it."""
    total = torch.zeros_like(codes, dtype=torch.int64)
    for back in range(-(-state // bits)):
        total |= codes.to(torch.int64).roll(back, 0) << back * bits
    return total & (1 << state) - 1
