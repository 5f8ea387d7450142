"""Format `trellis`: values of states that share all but a few bits with their neighbours; no codebook is stored.

A ring of T steps stores k bits a step. The state of a step is the last L bits stored up to it, and stands for V values that a
hash of the state gives. Before the first step come the bits of the last (tail-biting), so stored bits alone say every state.

    bits   … 1011 0010 0111 1100 …        k = 4
    state       ‾‾‾‾‾‾‾‾‾‾‾‾‾‾            L = 12: the step that ends here, and the two before it

QTIP (arXiv 2406.11235) has 1 or 2 weights a step and 256 of a tile in a ring; here V may be any number, which gives rates below
one bit, and a ring runs down all rows of V neighbouring columns. The hash is this project's.
"""

import functools
import math
from typing import ClassVar

import torch
from torch import Tensor

from workbench.errors import ShapeError
from workbench.kernels import bitpack
from workbench.kernels.packed import Packed
from workbench.kernels.reference.format import Format, over_columns, with_codes
from workbench.registry import register

WORD = 0xFFFFFFFF
HASH = ((0x9E3779B1, 15), (0x2C1B3C6D, 12), (0x297A2D39, 15))
DEVIATION = math.sqrt(4 * (256**2 - 1) / 12)  # of the sum of four evenly spread bytes: √21845


@register("format", "trellis")
class Trellis(Format):
    """value = scale · values(state); see above.

    Facts: `bits` k a step, `length` V columns a step, `state` L bits, `span` columns a group. Tensors: `path` (stream of k bits,
    `[rows, ceil(cols/V)]`; the ring of a step's columns runs down the rows), `scale` fp16 `[rows, groups]`. Values past the last
    column are ignored.

    Value j of state s: x = s · V + j + 1, then for each (m, r) of HASH x ← x · m mod 2³² and x ← x xor ⌊x / 2^r⌋; the sum of the
    four bytes of x, less 510, over √21845, which is close to normal.
    """

    paths: ClassVar = True
    items: ClassVar = {
        "path": "the newest bits of the state, for each row and step of columns",
        "scale": "magnitude, one a row and group",
    }

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """scale · values(state)."""
        check_unmasked(packed, mask)
        bits, length, state = (packed.facts[name] for name in ("bits", "length", "state"))
        steps = -(-packed.cols // length)
        codes = bitpack.unpack(packed.tensors["path"], bits, packed.rows * steps).view(packed.rows, steps)
        words = values(state, length).to(codes.device)[states(codes, bits, state)].view(packed.rows, -1)
        return over_columns(packed.tensors["scale"], packed.facts["span"], packed.cols) * words[:, : packed.cols]

    @classmethod
    def nearest(cls, packed: Packed, target: Tensor, mask: Tensor | None = None) -> Packed:
        """The path that leaves the least squared error, for every ring."""
        from workbench.kernels import viterbi  # it asks dispatch, which knows this module

        check_unmasked(packed, mask)
        bits, length, state, span = (packed.facts[name] for name in ("bits", "length", "state", "span"))
        groups = zip(target.split(span, 1), packed.tensors["scale"].float().unbind(1), strict=True)
        codes = torch.cat([viterbi.nearest(w, scale, bits, length, state) for w, scale in groups], 1)
        return with_codes(packed, "path", codes, bits, None)


def check_unmasked(packed: Packed, mask: Tensor | None) -> None:
    """Raise ShapeError where single weights are asked for."""
    if mask is not None:
        raise ShapeError(f"format {packed.format!r} stores whole rings and cannot be masked; use it for the whole matrix.")


@functools.lru_cache(maxsize=16)
def values(state: int, length: int) -> Tensor:
    """What each of the 2^`state` states stands for, float32 `[2^state, length]`."""
    x = torch.arange(1, (length << state) + 1)
    for factor, shift in HASH:
        x = x * factor & WORD
        x = x ^ x >> shift
    total = (x[:, None] >> torch.tensor([0, 8, 16, 24]) & 255).sum(1)
    return ((total - 510) / DEVIATION).to(torch.float32).view(-1, length)


def states(codes: Tensor, bits: int, state: int) -> Tensor:
    """The states `[steps, n]` of n rings of `codes [steps, n]`, int64: step t knows the codes of the steps up to it."""
    total = torch.zeros_like(codes, dtype=torch.int64)
    for back in range(-(-state // bits)):
        total |= codes.to(torch.int64).roll(back, 0) << back * bits
    return total & (1 << state) - 1
