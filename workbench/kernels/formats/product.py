"""Matmuls of the reference backend: decode the matrix and multiply, with or without caching the decoded matrix."""

from typing import cast

from torch import Tensor
from torch.nn.functional import linear as multiply

from workbench.kernels.formats.declared import check_tree
from workbench.kernels.formats.format import decode, find, linear
from workbench.kernels.formats.rounding import split_at_rounding
from workbench.kernels.formats.transforms import Transformed
from workbench.kernels.kernel_mode import Mode, check_columns
from workbench.kernels.packing.packed import Packed


class Decoded:
    """Decodes at the first call and keeps the float32 matrix, in the basis in which inputs are rounded where they are."""

    def __init__(self, packed: Packed) -> None:
        self._cols = packed.cols
        self._before, self._decoded = split_at_rounding(packed)  # without rounding the decoded matrix has undone all transforms
        self._weight: Tensor | None = None

    @property
    def bytes(self) -> int:
        """4 a weight after the first call."""
        return 0 if self._weight is None else self._weight.nbytes

    def __call__(self, x: Tensor) -> Tensor:
        """x Wᵀ with the decoded matrix."""
        check_columns(x, self._cols)
        if self._weight is None:
            self._weight = decode(self._decoded)
        for node in self._before:
            x = cast(type[Transformed], find(node)).input(x, node)
        return multiply(x, self._weight.to(x.dtype))


class Undecoded:
    """Decodes at every call and keeps nothing."""

    bytes = 0

    def __init__(self, packed: Packed) -> None:
        self._packed = packed

    def __call__(self, x: Tensor) -> Tensor:
        """x Wᵀ from the stored codes."""
        check_columns(x, self._packed.cols)
        return linear(x, self._packed)


def prepare(packed: Packed, mode: Mode) -> Decoded | Undecoded:
    """The product with a stored tree; ShapeError where it does not hold what its formats declare."""
    check_tree(packed)
    return Decoded(packed) if mode.cache == "decoded" else Undecoded(packed)
