"""A stored tree made ready to multiply: stripes of signs, sparse rows, thin factors, and what is done to inputs before them.

Every product takes float32 `x [n, cols]` in one piece and gives float32 `[n, rows]`; `bytes` is what it holds beside the stored
tensors.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.kernels.mode import Mode, Product
from workbench.kernels.numba import layout, sparse, transforms
from workbench.kernels.numba.layout import Stripes
from workbench.kernels.numba.planes import Codewords, Signs
from workbench.kernels.packed import Packed
from workbench.kernels.reference.composite import owners
from workbench.kernels.reference.format import decode, find
from workbench.kernels.reference.transforms import Transformed


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
    if packed.format == "binary-codebook" and mode.cache == "none" and few_enough(packed):
        return Codewords(layout.without_signs(packed), mode.precision, indices=layout.indices_of(packed))
    return Signs(STRIPES[packed.format](packed), mode.precision, FACTOR.get(packed.format, 1.0))


def few_enough(packed: Packed) -> bool:
    """Whether indices and codewords fit the 16 bits that looking them up at each call takes."""
    return packed.facts["entries"] <= 1 << 16 and packed.facts["length"] <= 16


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
    "ternary": layout.of_trits,
    "binary-codebook": layout.of_codebook,
    "parity-signs": layout.of_parity,
}
FACTOR = {"ternary": 0.5}  # of stripes that hold twice the matrix


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
    return Signs(STRIPES[leaf.format](leaf, mask), mode.precision, FACTOR.get(leaf.format, 1.0))


def planes_in_mask(leaf: Packed) -> int:
    """Planes of signs that a masked coder takes in stripes."""
    return leaf.facts["bits"] if leaf.format == "uniform" else 2 * leaf.facts["planes"] + ("mean" in leaf.tensors)
