"""A stored tree made ready to multiply: stripes of signs, sparse rows, thin factors, and what is done to inputs before them.

Every product takes float32 `x [n, cols]` in one piece and gives float32 `[n, rows]`; `bytes` is what it holds beside the stored
tensors.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.kernels.mode import Mode, Precision, Product
from workbench.kernels.numba import layout, signs, sparse, tiles, transforms
from workbench.kernels.numba.layout import STRIPE, Stripes
from workbench.kernels.numba.threads import threads, worth_threads
from workbench.kernels.packed import Packed
from workbench.kernels.reference.composite import owners
from workbench.kernels.reference.format import decode, find
from workbench.kernels.reference.transforms import Transformed

# numba's own types say nothing about arguments
serial: Any = signs.serial
parallel: Any = signs.parallel

MANY = 96  # inputs from which on decoding a tile and multiplying with it is faster, measured at 4096 × 4096
TILE = 1 << 20  # weights of a tile


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
        """Looked up for few inputs, by way of tiles for many."""
        y = self.tiled(x) if len(x) >= MANY else self.looked_up(x)
        return y if self.factor == 1 else y * self.factor

    def looked_up(self, x: Tensor) -> Tensor:
        """Sums of inputs, looked up by their signs."""
        y = np.empty((len(x), self.stripes.rows), np.float32)
        if worth_threads(self.stripes.rows * self.stripes.cols * len(x)):
            with threads():
                parallel(x.numpy(), *self.given, y)
        else:
            serial(x.numpy(), *self.given, y)
        return torch.from_numpy(y)

    @cached_property
    def given(self) -> Any:
        """What the loops take between inputs and outputs; see `signs.parallel`."""
        s = self.stripes
        digits = {"fast": 1, "exact": 2}[self.precision]
        return s.column, s.signs, s.scale, s.mean, s.zero, s.edges, s.planes, s.joined, s.span, digits

    def tiled(self, x: Tensor) -> Tensor:
        """Rows decoded to float32, a tile at a time."""
        s = self.stripes
        y = torch.empty(len(x), s.rows)
        count, each = -(-s.rows // STRIPE), max(1, TILE // (STRIPE * s.cols))
        for first in range(0, count, each):
            last = min(first + each, count)
            weight = torch.from_numpy(self.tile(first, last))
            rows = slice(STRIPE * first, min(STRIPE * last, s.rows))
            torch.mm(x, weight[: rows.stop - rows.start].mT, out=y[:, rows])
        return y

    def tile(self, first: int, last: int) -> np.ndarray:
        """Rows of some stripes, float32."""
        together = worth_threads(STRIPE * (last - first) * self.stripes.cols)
        with threads() if together else nullcontext():
            return tiles.tile(self.stripes, first, last, tiles.expand_parallel if together else tiles.expand_serial)


@dataclass(frozen=True)
class Sparse:
    """Few weights, by rows."""

    rows: sparse.Rows

    @property
    def bytes(self) -> int:
        """Bytes of the rows."""
        return self.rows.bytes

    def __call__(self, x: Tensor) -> Tensor:
        """One multiplication for each weight."""
        y = torch.empty(len(x), len(self.rows.start) - 1)
        sparse.product(x.numpy(), self.rows.start, self.rows.column, self.rows.value, y.numpy())
        return y


@dataclass(frozen=True)
class LowRank:
    """left · right, never multiplied out."""

    left: Tensor
    right: Tensor

    @property
    def bytes(self) -> int:
        """Bytes of both factors, in float32."""
        return self.left.nbytes + self.right.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """(x rightᵀ) leftᵀ."""
        return (x @ self.right.mT) @ self.left.mT


@dataclass(frozen=True)
class Sum:
    """Products added up; none at all is zero."""

    parts: tuple[Product, ...]
    rows: int

    @property
    def bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.bytes for part in self.parts)

    def __call__(self, x: Tensor) -> Tensor:
        """One part after the other."""
        if not self.parts:
            return torch.zeros(len(x), self.rows)
        y = self.parts[0](x)
        for part in self.parts[1:]:
            y = y + part(x)
        return y


@dataclass(frozen=True)
class After:
    """A product with changed inputs."""

    change: Callable[[Tensor], Tensor]
    product: Product
    held: int

    @property
    def bytes(self) -> int:
        """Bytes of the product and of what changes its inputs."""
        return self.held + self.product.bytes

    def __call__(self, x: Tensor) -> Tensor:
        """First the change, then the product."""
        return self.product(self.change(x))


def prepare(packed: Packed, mode: Mode) -> Product:
    """The product with a stored tree."""
    if issubclass(find(packed), Transformed):
        transform = transforms.prepare(packed)
        return After(transform.apply, prepare(packed.children[0], mode), transform.bytes)
    if packed.format == "sum":
        return Sum(tuple(prepare(child, mode) for child in packed.children), packed.rows)
    if packed.format == "masked":
        return Sum(tuple(masked(leaf, mask, mode) for leaf, mask in leaves(packed)), packed.rows)
    if packed.format == "low-rank":
        return LowRank(packed.tensors["left"].to(torch.float32), packed.tensors["right"].to(torch.float32))
    if packed.format == "binary-factors":
        right, left = factors(packed)
        inner = prepare(right, mode)
        return After(inner, prepare(left, mode), inner.bytes)
    if packed.format == "zero":
        return Sum((), packed.rows)
    return Signs(STRIPES[packed.format](packed), mode.precision)


def factors(packed: Packed) -> tuple[Packed, Packed]:
    """The two matrices of signs of `binary-factors` as planes: first the right one, then the left one."""
    rank, stored = packed.facts["rank"], packed.tensors
    middle = stored.get("middle", torch.ones(rank, dtype=torch.float16))
    outer = {"signs": stored["right"], "scale": middle.view(1, rank, 1), "column_scale": stored["column"][None]}
    inner = {"signs": stored["left"], "scale": stored["row"].view(1, packed.rows, 1)}
    return (
        Packed("planes", rank, packed.cols, outer, {"planes": 1, "span": packed.cols}),
        Packed("planes", packed.rows, rank, inner, {"planes": 1, "span": rank}),
    )


STRIPES: dict[str, Callable[..., Stripes]] = {
    "planes": layout.of_planes,
    "uniform": layout.of_codes,
    "binary-codebook": layout.of_codebook,
}


def leaves(packed: Packed, mask: Tensor | None = None) -> Iterator[tuple[Packed, Tensor]]:
    """Every coder below a mask that stores something, with the weights that it owns, bool `[rows, cols]`."""
    if packed.format == "masked":
        owner = owners(packed, mask)
        for number, child in enumerate(packed.children):
            own = owner == number
            yield from leaves(child, own if mask is None else own & mask)
    elif packed.format != "zero" and mask is not None:
        yield packed, mask


def masked(leaf: Packed, mask: Tensor, mode: Mode) -> Product:
    """The product with the weights that one coder owns: as sparse rows or in stripes, whichever takes less memory."""
    columns = mask.any(0)
    if leaf.format == "planes" and bool((mask == columns).all()):
        return After(lambda x: x * columns, Signs(layout.of_planes(leaf, mask), mode.precision), columns.nbytes)
    if leaf.format == "dense" or sparse.bits(mask) < planes_in_mask(leaf) * mask.numel():
        return Sparse(sparse.of(decode(leaf, mask), mask))
    if leaf.format == "planes":
        return Signs(layout.of_masked_planes(leaf, mask), mode.precision, 0.5)
    return Signs(layout.of_codes(leaf, mask), mode.precision)


def planes_in_mask(leaf: Packed) -> int:
    """Planes of signs that a masked coder takes in stripes."""
    return leaf.facts["bits"] if leaf.format == "uniform" else 2 * leaf.facts["planes"] + ("mean" in leaf.tensors)
