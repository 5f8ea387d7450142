"""Matmuls with sign planes, kept as signs or as codeword indices: by table lookup, or by dense tiles for large batches."""

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.kernels.jit.simd import INSTRUCTION
from workbench.kernels.jit.threads import needs_threads, use_threads
from workbench.kernels.kernel_mode import Precision
from workbench.kernels.matmul.numba.lut import codeword_matmul, dense_tiles, sign_matmul
from workbench.kernels.matmul.numba.lut.sign_matmul import STRIPE_ROWS
from workbench.kernels.matmul.numba.lut.stripe_layout import Indices, Stripes

# A look-up costs as much as there are planes times digits of an input, a tile hardly more for more of them. Up to so many,
# looking up is faster than multiplying in float32 however many inputs there are; for more, it pays to decode a tile and multiply
# from so many on, counted as planes times digits times inputs. Measured at 2048 × 2048, of AVX-512 before tiles became faster.
FEW_LOOKUPS = {"avx512vnni": 16, "avx512bw": 10, "avx2": 4, "portable": 0}
MANY_LOOKUPS = {"avx512vnni": 4608, "avx512bw": 3072, "avx2": 1750, "portable": 64}
TILE = 1 << 20  # weights of a tile
DIGITS_OF_PRECISION = {"fast": 1, "exact": 2}


def choose_tile_threshold(planes: int, digits: int) -> float:
    """The number of inputs from which on tiles and a matrix product are faster than looking up sums of so many digits."""
    lookups = planes * digits
    return inf if lookups <= FEW_LOOKUPS[INSTRUCTION] else MANY_LOOKUPS[INSTRUCTION] / lookups


@dataclass(frozen=True)
class Signs:
    """Sign planes or codes, in stripes; `factor` is applied to the result."""

    stripes: Stripes
    precision: Precision
    factor: float = 1.0

    @property
    def bytes(self) -> int:
        """Bytes of the stripes."""
        return self.stripes.bytes

    def __call__(self, x: Tensor) -> Tensor:
        """x Wᵀ for float32 `x [n, cols]`."""
        inputs = x.numpy()  # asking a tensor for its length takes as long as a thousand weights
        y = self.tiled(x) if len(inputs) >= self.many_inputs else self.looked_up(inputs)
        return y if self.factor == 1 else y.mul_(self.factor)

    def looked_up(self, x: np.ndarray) -> Tensor:
        """Sums of inputs, looked up by their signs."""
        y = np.empty((len(x), self.stripes.rows), np.float32)
        if needs_threads(y.size * self.stripes.cols):
            with use_threads():
                self.loops[1](x, *self.loop_arguments, y)
        else:
            self.loops[0](x, *self.loop_arguments, y)
        return torch.from_numpy(y)

    @cached_property
    def many_inputs(self) -> float:
        """From how many inputs on it pays to decode tiles."""
        return choose_tile_threshold(self.stripes.planes, DIGITS_OF_PRECISION[self.precision])

    @cached_property
    def loops(self) -> Any:
        """The compiled loop of one thread and that of all threads."""
        return sign_matmul.multiply_serial, sign_matmul.multiply_parallel

    @cached_property
    def loop_arguments(self) -> Any:
        """What the loops take between inputs and outputs; see `sign_matmul.multiply_parallel`."""
        s = self.stripes
        return (
            s.column,
            s.signs,
            s.scale,
            s.mean,
            s.zero,
            s.edges,
            s.planes,
            s.joined,
            s.span,
            s.abreast,
            DIGITS_OF_PRECISION[self.precision],
        )

    def tiled(self, x: Tensor) -> Tensor:
        """Rows decoded to float32, a tile at a time."""
        s = self.stripes
        y = torch.empty(len(x), s.rows)
        count, stripes_at_once = -(-s.rows // STRIPE_ROWS), max(1, TILE // (STRIPE_ROWS * s.cols))
        for first in range(0, count, stripes_at_once):
            last = min(first + stripes_at_once, count)
            together = needs_threads(STRIPE_ROWS * (last - first) * s.cols)
            with use_threads() if together else nullcontext():
                weight = dense_tiles.expand_tile(
                    self.part(first, last), dense_tiles.expand_parallel if together else dense_tiles.expand_serial
                )
            rows = slice(STRIPE_ROWS * first, min(STRIPE_ROWS * last, s.rows))
            torch.mm(x, torch.from_numpy(weight)[: rows.stop - rows.start].mT, out=y[:, rows])
        return y

    def part(self, first: int, last: int) -> Stripes:
        """Some of the stripes."""
        return self.stripes.part(first, last)


@dataclass(frozen=True)
class Codewords(Signs):
    """Indices into a binary codebook: fewer bytes than signs where an index is shorter than its vector, and slower."""

    indices: Indices = None  # type: ignore[assignment]  # fields with defaults come before it

    @property
    def bytes(self) -> int:
        """Bytes of indices, codewords and scales."""
        return self.stripes.bytes + self.indices.bytes

    @cached_property
    def loops(self) -> Any:
        """The compiled loop of one thread and that of all threads."""
        return codeword_matmul.multiply_serial, codeword_matmul.multiply_parallel

    @cached_property
    def loop_arguments(self) -> Any:
        """What the loops take between inputs and outputs; see `codeword_matmul.multiply_parallel`."""
        s, i = self.stripes, self.indices
        digits = DIGITS_OF_PRECISION[self.precision]
        coded = i.stream, i.width, i.vectors, i.words, i.length
        return s.column, *coded, s.scale, s.mean, s.zero, s.edges, s.span, s.abreast, digits

    def part(self, first: int, last: int) -> Stripes:
        """Some of the stripes, with the signs that their indices stand for."""
        i, steps = self.indices, int(self.stripes.edges[-1])
        stripe_bytes = i.vectors * 8 * i.width
        decoded = np.empty((last - first, steps * STRIPE_ROWS), np.uint8)
        for number in range(first, last):
            codeword_matmul.decode(
                i.stream,
                number * stripe_bytes,
                i.width,
                i.vectors,
                i.words,
                i.length,
                self.stripes.abreast,
                decoded[number - first],
            )
        return replace(self.stripes.part(first, last), signs=decoded.reshape(-1))
