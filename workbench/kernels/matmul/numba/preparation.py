"""A stored tree made ready to multiply: stripes of signs, sparse rows, thin factors, and what is done to inputs before them.

Every product takes float32 `x [n, cols]` in one piece and gives float32 `[n, rows]`; `bytes` is what it holds beside the stored
tensors.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.kernels.formats.composite import owners
from workbench.kernels.formats.format import decode, find
from workbench.kernels.formats.transforms import Transformed
from workbench.kernels.matmul.composed import After, Sum, of_parts
from workbench.kernels.matmul.numba import transforms
from workbench.kernels.matmul.numba.dense import codebook_matmul, sparse_rows
from workbench.kernels.matmul.numba.lut import stripe_layout
from workbench.kernels.matmul.numba.lut.sign_products import Codewords, Signs
from workbench.kernels.matmul.numba.lut.stripe_layout import Stripes
from workbench.kernels.matmul.numba.supported import WORDS
from workbench.kernels.options import Mode, Product
from workbench.kernels.packing.packed import Packed


@dataclass(frozen=True)
class Sparse:
    """Few weights, by rows."""

    rows: sparse_rows.Rows

    @property
    def bytes(self) -> int:
        """Bytes of the rows."""
        return self.rows.bytes

    def __call__(self, x: Tensor) -> Tensor:
        """One multiplication for each weight."""
        y = torch.empty(len(x), len(self.rows.start) - 1)
        sparse_rows.product(x.numpy(), self.rows.start, self.rows.column, self.rows.value, y.numpy())
        return y


def prepare(packed: Packed, mode: Mode) -> Product:
    """The product with a stored tree."""
    if issubclass(find(packed), Transformed):
        transform = transforms.prepare(packed)
        return After(transform.apply, prepare(packed.children[0], mode), transform.bytes)
    if (product := of_parts(packed, lambda part: prepare(part, mode))) is not None:
        return product
    if packed.format == "masked":
        return Sum(tuple(masked(leaf, mask, mode) for leaf, mask in leaves(packed)), packed.rows)
    if packed.format in WORDS:
        return codebook_matmul.decoded(packed) if mode.cache == "decoded" else codebook_matmul.keep_words(packed)
    if packed.format == "binary-codebook" and mode.cache == "none" and few_enough(packed):
        return Codewords(stripe_layout.without_signs(packed), mode.precision, indices=stripe_layout.indices_of(packed))
    return Signs(STRIPES[packed.format](packed), mode.precision, FACTOR.get(packed.format, 1.0))


def few_enough(packed: Packed) -> bool:
    """Whether indices and codewords fit the 16 bits that looking them up at each call takes."""
    return packed.facts["entries"] <= 1 << 16 and packed.facts["length"] <= 16


STRIPES: dict[str, Callable[..., Stripes]] = {
    "planes": stripe_layout.of_planes,
    "uniform": stripe_layout.of_codes,
    "ternary": stripe_layout.of_trits,
    "binary-codebook": stripe_layout.of_codebook,
    "parity-signs": stripe_layout.of_parity,
}
FACTOR = {"ternary": 0.5}  # of stripes that hold twice the matrix


def leaves(packed: Packed, mask: Tensor | None = None) -> Iterator[tuple[Packed, Tensor]]:
    """Every coder below a mask that stores something, with the weights that it owns, bool `[rows, cols]`."""
    if packed.format == "masked":
        owner = owners(packed, mask)
        for number, child in enumerate(packed.children):
            of_child = owner == number
            yield from leaves(child, of_child if mask is None else of_child & mask)
    elif packed.format != "zero" and mask is not None:
        yield packed, mask


def masked(leaf: Packed, mask: Tensor, mode: Mode) -> Product:
    """The product with the weights that one coder owns: as sparse rows or in stripes, whichever takes less memory."""
    columns = mask.any(0)
    if leaf.format == "planes" and bool((mask == columns).all()):
        return After(lambda x: x * columns, Signs(stripe_layout.of_planes(leaf, mask), mode.precision), columns.nbytes)
    if leaf.format == "dense" or sparse_rows.bits(mask) < planes_in_mask(leaf) * mask.numel():
        return Sparse(sparse_rows.pack_rows(decode(leaf, mask), mask))
    if leaf.format == "planes":
        return Signs(stripe_layout.of_masked_planes(leaf, mask), mode.precision, 0.5)
    return Signs(STRIPES[leaf.format](leaf, mask), mode.precision, FACTOR.get(leaf.format, 1.0))


def planes_in_mask(leaf: Packed) -> int:
    """Planes of signs that a masked coder takes in stripes."""
    return leaf.facts["bits"] if leaf.format == "uniform" else 2 * leaf.facts["planes"] + ("mean" in leaf.tensors)
