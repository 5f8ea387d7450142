"""Matmuls with matrices of fp16 numbers and float32 scales: formats whose values are not sums of signs, decoded once.

value = scale[row, group] · half, exactly: codewords are stored in fp16, and a trellis has whole numbers below 512. Groups are
filled up with zeros to whole vectors of LANES columns, and so are inputs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numba import prange
from torch import Tensor

from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.jit.simd import fill, load_floats, load_halves, multiply_add, store_floats
from workbench.kernels.jit.threads import needs_threads, use_threads

LANES = 32
MANY_INPUTS = 8  # from which on a tile in float32 and a matrix product are faster
TILE = 1 << 18  # weights of a tile
THREAD_ROWS = 64  # that a thread takes at a time


@dataclass(frozen=True)
class Halves:
    """`values [rows, groups · width]` the bits of fp16 numbers, `scale [rows, groups]`; a group has `span` real columns."""

    values: np.ndarray
    scale: np.ndarray
    cols: int
    span: int

    @property
    def bytes(self) -> int:
        """Bytes of numbers and scales."""
        return self.values.nbytes + self.scale.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """x Wᵀ for float32 `x [n, cols]`."""
        inputs = pad_groups(x, self.span, self.scale.shape[1])
        if len(x) >= MANY_INPUTS:
            return multiply_by_tiles(inputs, self.scale, self.values.__getitem__)
        y = np.empty((len(x), len(self.values)), np.float32)
        if needs_threads(self.values.size * len(x)):
            with use_threads():
                multiply_parallel(inputs.numpy(), self.values, self.scale, y)
        else:
            multiply_serial(inputs.numpy(), self.values, self.scale, y)
        return torch.from_numpy(y)


def pad_groups(values: Tensor, span: int, groups: int) -> Tensor:
    """The last dimension with each group of `span` columns filled up with zeros to whole vectors."""
    width = -(-span // LANES) * LANES
    if values.shape[-1] == groups * width:
        return values
    full = torch.nn.functional.pad(values, (0, groups * span - values.shape[-1])).unflatten(-1, (groups, span))
    return torch.nn.functional.pad(full, (0, width - span)).flatten(-2)


def pack_fp16(numbers: Tensor, scale: Tensor, cols: int, span: int) -> Halves:
    """fp16 `numbers [rows, cols]` and float32 `scale [rows, groups]`."""
    span = min(span, cols)
    values = pad_groups(numbers, span, scale.shape[1]).contiguous()
    return Halves(values.view(torch.int16).numpy().view(np.uint16), scale.contiguous().numpy(), cols, span)


def multiply_by_tiles(x: Tensor, scale: np.ndarray, rows_of: object) -> Tensor:
    """The product by way of float32 tiles; `rows_of(slice)` gives the fp16 bits of some rows."""
    rows, groups = scale.shape
    y, rows_at_once = torch.empty(len(x), rows), max(THREAD_ROWS, TILE // x.shape[1])
    for first in range(0, rows, rows_at_once):
        piece = slice(first, min(first + rows_at_once, rows))
        numbers = torch.from_numpy(rows_of(piece).view(np.int16)).view(torch.float16)  # type: ignore[operator]
        tile = (numbers.float().view(len(numbers), groups, -1) * torch.from_numpy(scale[piece])[..., None]).flatten(1)
        torch.mm(x, tile.mT, out=y[:, piece])
    return y


@compile_cached
def multiply(x: np.ndarray, values: np.ndarray, scale: np.ndarray, to: int, y: np.ndarray) -> None:
    """The rows of `values` into the columns of `y [inputs, rows]` from `to` on."""
    lanes = np.empty(LANES, np.float32)
    groups = scale.shape[1]
    width = values.shape[1] // groups
    for row in range(len(values)):
        for i in range(len(x)):
            total = np.float32(0)
            for group in range(groups):
                first, second = fill(np.float32(0)), fill(np.float32(0))
                at, end = group * width, (group + 1) * width
                while at + LANES < end:
                    first = multiply_add(load_halves(values[row], at), load_floats(x[i], at), first)
                    second = multiply_add(load_halves(values[row], at + LANES), load_floats(x[i], at + LANES), second)
                    at += 2 * LANES
                if at < end:
                    first = multiply_add(load_halves(values[row], at), load_floats(x[i], at), first)
                store_floats(lanes, 0, multiply_add(fill(np.float32(1)), first, second))
                part = np.float32(0)
                for lane in range(LANES):
                    part += lanes[lane]
                total += scale[row, group] * part
            y[i, to + row] = total


@compile_cached
def multiply_serial(x: np.ndarray, values: np.ndarray, scale: np.ndarray, y: np.ndarray) -> None:
    """y = x Wᵀ on this thread alone."""
    multiply(x, values, scale, 0, y)


@compile_cached(parallel=True)
def multiply_parallel(x: np.ndarray, values: np.ndarray, scale: np.ndarray, y: np.ndarray) -> None:
    """y = x Wᵀ on all threads."""
    for block in prange((len(values) + THREAD_ROWS - 1) // THREAD_ROWS):
        first, last = block * THREAD_ROWS, min(len(values), (block + 1) * THREAD_ROWS)
        multiply(x, values[first:last], scale[first:last], first, y)
