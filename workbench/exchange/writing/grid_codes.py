"""A stored matrix read as whole numbers on a grid, which is what the formats of other tools hold.

value = scale · (code − zero), with one scale a row and group of columns: a uniform grid is one, and so are a single plane of
trits (codes 0 to 2 around zero 1) and a single plane of signs (codes 0 and 2 around zero 1).
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from workbench.kernels.formats.format import unpack_codes
from workbench.kernels.formats.rounding import ROUNDED
from workbench.kernels.formats.ternary import unpack_trits
from workbench.kernels.formats.transforms import unpack_order
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed

BASES = {
    "permuted": "its columns are stored in another order",
    "hadamard": "it is stored in a rotated basis",
    "rotated": "it is stored in a learned rotated basis",
    "fourier": "it is stored as Fourier coefficients",
    "scaled": "its columns are stored with scales of their own",
}
TRIT_ZERO = 1  # the code that stands for 0 where trits and signs are read as codes 0 to 2


@dataclass(frozen=True)
class GridCodes:
    """A matrix of format `uniform`, or of one plane of trits or signs.

    `order [cols]` says which input each stored column belongs to, None where they are in order; `input_bits` that the layer
    rounds its inputs to so many bits at run time, 0 where it does not.
    """

    packed: Packed
    order: Tensor | None = None
    input_bits: int = 0

    @property
    def bits(self) -> int:
        """Of a code."""
        return int(self.packed.facts["bits"]) if self.packed.format == "uniform" else 2

    @property
    def span(self) -> int:
        """Columns of a group."""
        return int(self.packed.facts["span"])

    @property
    def has_offset(self) -> bool:
        """Whether what stands for 0 among the codes is no whole number."""
        return "offset" in self.packed.tensors

    @property
    def is_symmetric(self) -> bool:
        """Whether 2^(bits−1), or for trits and signs 1, stands for 0 everywhere."""
        return not {"offset", "zero"} & self.packed.tensors.keys()

    @cached_property
    def scale(self) -> Tensor:
        """Fp16 `[rows, groups]`."""
        scale = self.packed.tensors["scale"]
        return scale if self.packed.format == "uniform" else scale[0]

    @cached_property
    def zero(self) -> Tensor:
        """The code that stands for 0, int16 `[rows, groups]`; where an offset takes its place, 0."""
        if "zero" in self.packed.tensors:
            return bitpack.unpack(self.packed.tensors["zero"], self.bits, self.scale.numel()).view_as(self.scale).to(torch.int16)
        zero = 0 if self.has_offset else 1 << (self.bits - 1) if self.packed.format == "uniform" else TRIT_ZERO
        return torch.full(self.scale.shape, zero, dtype=torch.int16)

    def codes(self) -> Tensor:
        """The codes, int16 `[rows, cols]`, in stored order."""
        if self.packed.format == "ternary":
            return unpack_trits(self.packed)[0].to(torch.int16) + TRIT_ZERO
        if self.packed.format == "planes":
            return 2 * unpack_codes(self.packed, "signs", 1, None)[0].to(torch.int16)
        return unpack_codes(self.packed, "codes", self.bits, None)[0].to(torch.int16)

    def levels(self) -> Tensor:
        """code − zero, int16 `[rows, cols]`: what the scale is multiplied with, where there is no offset."""
        return self.codes() - self.zero.repeat_interleave(self.span, 1)[:, : self.packed.cols]


def read_grid(packed: Packed) -> GridCodes | str:
    """The codes of a stored matrix, or why it is not stored as codes on one grid."""
    input_bits, order = 0, None
    if packed.format == ROUNDED:
        input_bits, packed = packed.facts["bits"], packed.children[0]
    if packed.format == "permuted" and packed.children[0].format in ("uniform", "ternary", "planes"):
        order, packed = unpack_order(packed), packed.children[0]
    if packed.format in BASES:
        return BASES[packed.format]
    if packed.format == "uniform":
        return GridCodes(packed, order, input_bits)
    if packed.format not in ("ternary", "planes"):
        return f"it is stored as {' of '.join(dict.fromkeys(node.format for _, node in packed.walk()))}"
    if packed.facts["planes"] > 1:
        return f"it is a sum of {packed.facts['planes']} planes"
    if "mean" in packed.tensors or "column_scale" in packed.tensors:
        return f"it stores {'a mean for each group' if 'mean' in packed.tensors else 'a scale for each column'}"
    return GridCodes(packed, order, input_bits)


def expand_to_blocks(grid: GridCodes, per_group: Tensor, block: int) -> Tensor | None:
    """`per_group [rows, groups]` for blocks of columns, `[rows, cols // block]`; None where a block would be in two groups."""
    cols = grid.packed.cols
    if cols % block:
        return None
    if grid.span >= cols:
        return per_group.expand(-1, cols // block)
    return None if grid.span % block else per_group.repeat_interleave(grid.span // block, 1)[:, : cols // block]
