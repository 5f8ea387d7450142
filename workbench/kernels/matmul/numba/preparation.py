"""Preparation of a stored tree for matmul: stripes of signs, sparse rows, thin factors, and input transforms.

Every product takes float32 `x [n, cols]` in one piece and gives float32 `[n, rows]`; `bytes` is what it holds beside the stored
tensors.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.kernels.formats.composite import unpack_owners
from workbench.kernels.formats.format import decode, find
from workbench.kernels.formats.transforms import Transformed
from workbench.kernels.kernel_mode import Mode, Product
from workbench.kernels.matmul.composed import After, Sum, compose_product
from workbench.kernels.matmul.numba import transforms
from workbench.kernels.matmul.numba.dense import codebook_matmul, sparse_rows
from workbench.kernels.matmul.numba.lut import stripe_layout
from workbench.kernels.matmul.numba.lut.sign_products import Codewords, Signs
from workbench.kernels.matmul.numba.lut.stripe_layout import Stripes
from workbench.kernels.matmul.numba.supported import CODEWORD_FORMATS
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
        sparse_rows.multiply_rows(x.numpy(), self.rows.start, self.rows.column, self.rows.value, y.numpy())
        return y


def prepare(packed: Packed, mode: Mode) -> Product:
    """The product with a stored tree."""
    if issubclass(find(packed), Transformed):
        transform = transforms.prepare(packed)
        return After(transform.apply, prepare(packed.children[0], mode), transform.bytes)
    if (product := compose_product(packed, lambda part: prepare(part, mode))) is not None:
        return product
    if packed.format == "masked":
        return Sum(tuple(_prepare_masked(leaf, mask, mode) for leaf, mask in _iterate_leaves(packed)), packed.rows)
    if packed.format in CODEWORD_FORMATS:
        return codebook_matmul.decode_to_fp16(packed) if mode.cache == "decoded" else codebook_matmul.keep_words(packed)
    if packed.format == "binary-codebook" and mode.cache == "none" and _can_look_up_indices(packed):
        return Codewords(stripe_layout.lay_out_scales(packed), mode.precision, indices=stripe_layout.lay_out_indices(packed))
    return Signs(STRIPES[packed.format](packed), mode.precision, FACTOR.get(packed.format, 1.0))


def _can_look_up_indices(packed: Packed) -> bool:
    """Whether indices and codewords fit the 16 bits that looking them up at each call takes."""
    return packed.facts["entries"] <= 1 << 16 and packed.facts["length"] <= 16


STRIPES: dict[str, Callable[..., Stripes]] = {
    "planes": stripe_layout.lay_out_planes,
    "uniform": stripe_layout.lay_out_codes,
    "ternary": stripe_layout.lay_out_trits,
    "binary-codebook": stripe_layout.lay_out_codebook,
    "parity-signs": stripe_layout.lay_out_parity,
}
FACTOR = {"ternary": 0.5}  # of stripes that hold twice the matrix


def _iterate_leaves(packed: Packed, mask: Tensor | None = None) -> Iterator[tuple[Packed, Tensor]]:
    """Every coder below a mask that stores something, with the weights that it owns, bool `[rows, cols]`."""
    if packed.format == "masked":
        owner = unpack_owners(packed, mask)
        for number, child in enumerate(packed.children):
            of_child = owner == number
            yield from _iterate_leaves(child, of_child if mask is None else of_child & mask)
    elif packed.format != "zero" and mask is not None:
        yield packed, mask


def _prepare_masked(leaf: Packed, mask: Tensor, mode: Mode) -> Product:
    """The product with the weights that one coder owns: as sparse rows or in stripes, whichever takes less memory."""
    columns = mask.any(0)
    if leaf.format == "planes" and bool((mask == columns).all()):
        return After(lambda x: x * columns, Signs(stripe_layout.lay_out_planes(leaf, mask), mode.precision), columns.nbytes)
    if leaf.format == "dense" or sparse_rows.count_sparse_bits(mask) < _count_masked_planes(leaf) * mask.numel():
        return Sparse(sparse_rows.pack_rows(decode(leaf, mask), mask))
    if leaf.format == "planes":
        return Signs(stripe_layout.lay_out_masked_planes(leaf, mask), mode.precision, 0.5)
    return Signs(STRIPES[leaf.format](leaf, mask), mode.precision, FACTOR.get(leaf.format, 1.0))


def _count_masked_planes(leaf: Packed) -> int:
    """Planes of signs that a masked coder takes in stripes."""
    return leaf.facts["bits"] if leaf.format == "uniform" else 2 * leaf.facts["planes"] + ("mean" in leaf.tensors)
