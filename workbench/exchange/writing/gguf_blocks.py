"""The block types of GGUF: which of them holds a stored matrix exactly, and its bytes.

A block is `block` neighbouring weights of a row with one scale d in fp16 (and in Q4_1 and Q5_1 a minimum m):

    Q1_0   d, 128 signs of one bit                     TQ1_0  256 trits, five to a byte, d
    Q4_0   d, 32 levels −8 … 7 in halves of bytes      TQ2_0  256 trits in two bits each, d
    Q4_1   d, m, 32 codes 0 … 15: d · code + m         Q5_0   d, a fifth bit of all, 32 levels −16 … 15
    Q5_1   d, m, a fifth bit, 32 codes 0 … 31          Q8_0   d, 32 levels −128 … 127 in bytes

In the halves of a byte lie weights j (low) and j + 16 (high).
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workbench.exchange.writing.grid_codes import GridCodes, expand_to_blocks

Bytes = np.ndarray


@dataclass(frozen=True)
class BlockType:
    """Levels from `low` to `high`, `block` of them in `nbytes`; with a minimum the levels are codes from 0."""

    name: str
    block: int
    nbytes: int
    low: int
    high: int
    minimum: bool = False


TYPES = (  # the smallest first
    BlockType("Q1_0", 128, 18, -1, 1),
    BlockType("TQ1_0", 256, 54, -1, 1),
    BlockType("TQ2_0", 256, 66, -1, 1),
    BlockType("Q4_0", 32, 18, -8, 7),
    BlockType("Q4_1", 32, 20, 0, 15, minimum=True),
    BlockType("Q5_0", 32, 22, -16, 15),
    BlockType("Q5_1", 32, 24, 0, 31, minimum=True),
    BlockType("Q8_0", 32, 34, -128, 127),
)
NAMES = tuple(kind.name for kind in TYPES)


def choose_type(grid: GridCodes, allowed: Collection[str] = NAMES) -> tuple[BlockType, str] | str:
    """The smallest type that holds a matrix, with what is lost in it (nothing for whole zeros), or why there is none.

    Where 0 is no whole number among the codes, the minimum is the nearest fp16 number to its product with the scale.
    """
    if grid.order is not None:
        return "its columns are stored in another order"
    levels = grid.codes() if grid.has_offset else grid.levels()
    low, high, signs = int(levels.min()), int(levels.max()), not bool((levels == 0).any())
    fitting = [kind for kind in TYPES if kind.minimum == grid.has_offset and kind.low <= low and high <= kind.high]
    fitting = [kind for kind in fitting if kind.name != "Q1_0" or signs]
    if not fitting:
        return f"its levels from {low} to {high} are more than GGUF's types of one scale hold"
    fitting = [kind for kind in fitting if kind.name in allowed]
    blocks = [kind for kind in fitting if expand_to_blocks(grid, grid.scale, kind.block) is not None]
    if not blocks:
        sizes = ", ".join(dict.fromkeys(str(kind.block) for kind in fitting))
        return (
            f"groups of {grid.span} in {grid.packed.cols} columns are no blocks of {sizes}"
            if fitting
            else (f"its levels from {low} to {high} are in none of the types {', '.join(allowed)}")
        )
    return blocks[0], _describe_minimum(grid) if grid.has_offset else ""


def explain_growth(grid: GridCodes, chosen: BlockType, allowed: Collection[str] = NAMES) -> str:
    """Why the chosen type takes more bits than the codes do: what the next smaller one lacks, and scales that are repeated."""
    smaller = [kind for kind in TYPES[: TYPES.index(chosen)] if kind.minimum == grid.has_offset and kind.name in allowed]
    reasons = []
    if smaller and smaller[-1].high - smaller[-1].low + 1 >= 1 << grid.bits:
        levels, near = grid.codes() if grid.has_offset else grid.levels(), smaller[-1]
        fits = near.low <= int(levels.min()) and int(levels.max()) <= near.high
        lack = f"no blocks of {near.block}" if fits else f"levels beyond {near.low} to {near.high}"
        reasons.append(f"{lack}, which {near.name} {'needs' if fits else 'holds'}")
    if grid.span > chosen.block:
        reasons.append(f"each scale of {min(grid.span, grid.packed.cols)} columns is repeated for blocks of {chosen.block}")
    return "; ".join(reasons)


def _describe_minimum(grid: GridCodes) -> str:
    """What is lost where the minima are rounded to fp16, as a bound that is a power of two; empty where nothing is."""
    exact = -grid.scale.float() * grid.packed.tensors["offset"].float()
    error = (exact.half().float() - exact).abs()
    steps = float((error / grid.scale.float().abs().clamp_min(torch.finfo(torch.float32).tiny)).max())
    return f"stored with minima rounded to fp16, by less than 1/{2 ** math.floor(-math.log2(steps))} of a step" if steps else ""


def encode(grid: GridCodes, kind: BlockType, rows: Tensor | None = None) -> Bytes:
    """The blocks of a matrix, uint8 `[rows, bytes]`, its rows in another order where `rows` says so."""
    levels = (grid.codes() if kind.minimum else grid.levels()).numpy()
    scale = _expand_scales(grid, grid.scale, kind)
    parts = [scale]
    if kind.minimum:
        parts.append(_expand_scales(grid, (-grid.scale.float() * grid.packed.tensors["offset"].float()).half(), kind))
    blocks = levels.reshape(-1, kind.block)
    parts = [*_pack_levels(blocks, kind), *parts] if kind.name.startswith("TQ") else [*parts, *_pack_levels(blocks, kind)]
    encoded = np.concatenate(parts, axis=1).reshape(grid.packed.rows, -1)
    return encoded if rows is None else encoded[rows.numpy()]


def _expand_scales(grid: GridCodes, per_group: Tensor, kind: BlockType) -> Bytes:
    """Two bytes for each block, `[blocks, 2]`."""
    expanded = expand_to_blocks(grid, per_group, kind.block)
    assert expanded is not None, "checked by choose_type"
    return np.ascontiguousarray(expanded.numpy()).reshape(-1, 1).view(np.uint8)


def _pack_levels(blocks: np.ndarray, kind: BlockType) -> list[Bytes]:
    """The levels of each block `[blocks, block]` as bytes, in the order in which they lie behind one another."""
    if kind.name == "Q1_0":
        return [np.packbits(blocks > 0, axis=1, bitorder="little")]
    if kind.name == "TQ2_0":
        return [_pack_trit_pairs(blocks)]
    if kind.name == "TQ1_0":
        return _pack_trits(blocks)
    if kind.name == "Q8_0":
        return [blocks.astype(np.int8).view(np.uint8)]
    codes = (blocks - kind.low).astype(np.uint8)
    halves = (codes[:, :16] & 15) | (codes[:, 16:] & 15) << 4
    return [halves] if kind.high - kind.low < 16 else [np.packbits(codes >> 4, axis=1, bitorder="little"), halves]


def _pack_trit_pairs(blocks: np.ndarray) -> Bytes:
    """Two bits a trit: byte m of each half of a block holds weights m, m + 32, m + 64 and m + 96 of that half."""
    quarters = (blocks + 1).astype(np.uint8).reshape(-1, 2, 4, 32)
    return np.bitwise_or.reduce(quarters << np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1), axis=2).reshape(-1, 64)


def _pack_trits(blocks: np.ndarray) -> list[Bytes]:
    """Five trits to a byte: weights m, m + 32, … of 160, then m, m + 16, … of 80, then four to a byte of the last 16."""
    trits = (blocks + 1).astype(np.uint16)
    pieces = (trits[:, :160].reshape(-1, 5, 32), trits[:, 160:240].reshape(-1, 5, 16), trits[:, 240:].reshape(-1, 4, 4))
    return [_pack_base_three(piece) for piece in pieces]


def _pack_base_three(trits: np.ndarray) -> Bytes:
    """Up to five trits `[blocks, trits, bytes]` as the first digits of a fraction in base 3, scaled to a byte and rounded up."""
    digits = sum(trits[:, digit] * 3 ** (4 - digit) for digit in range(trits.shape[1]))
    return ((np.asarray(digits, np.uint32) * 256 + 242) // 243).astype(np.uint8)
