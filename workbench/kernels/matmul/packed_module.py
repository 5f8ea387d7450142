"""Modules that keep the forward pass of their class but hold a stored matrix instead of its weight.

PackedModule (a router) decodes all of it, PackedEmbedding only the rows that are looked up.
"""

from functools import cache
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from workbench.kernels.formats.format import decode
from workbench.kernels.kernel_mode import Cache
from workbench.kernels.matmul.decoded_rows import take_rows
from workbench.kernels.matmul.packed_matrix import PackedMatrix
from workbench.kernels.packing.packed import Packed


class PackedModule(PackedMatrix):
    """A module of any class on a stored matrix: its own forward pass reads `weight`, which is decoded.

    With cache "decoded" it is decoded once and kept in float32, with "none" whenever it is read.
    """

    keeps_decoded: bool

    @classmethod
    def instead_of(cls, module: nn.Module, packed: Packed, *, cache: Cache = "decoded") -> Self:
        """The stored form of a module with a `weight`, and everything else that its class holds."""
        replacement: Self = object.__new__(cast(Any, _make_packed_class)(cls, type(module)))
        replacement.__dict__.update(vars(module))
        for name in ("_parameters", "_buffers", "_modules"):
            replacement.__dict__[name] = dict(vars(module)[name])
        del replacement._parameters["weight"]
        replacement.hold(packed)
        replacement.keeps_decoded = cache == "decoded"
        return replacement

    def __getattr__(self, name: str) -> Any:
        return self.matrix() if name == "weight" else super().__getattr__(name)

    def matrix(self) -> Tensor:
        """The decoded matrix, float32 `[rows, cols]`."""
        if not self.keeps_decoded:
            return decode(self.packed)
        if "reference" not in self._prepared:
            self._prepared["reference"] = Decoded(decode(self.packed))
        return self._prepared["reference"].matrix


class PackedEmbedding(PackedModule):
    """An embedding of any class on a stored `[entries, width]` matrix: its own forward pass runs on the rows it looks up.

    Only these rows are decoded. Where a format keeps rows together (trellises, parity checks, masks of single weights) the whole
    matrix is: once with cache "decoded", which keeps it in float32, at every call with "none".
    """

    def forward(self, ids: Tensor) -> Tensor:
        """What the embedding's own class makes of the rows of `ids`."""
        entries, places = torch.unique(ids, return_inverse=True)
        padding, cast(Any, self).padding_idx = cast(Any, self).padding_idx, None  # it only concerns gradients
        vars(self)["weight"] = self.look_up(entries)
        try:
            return super().forward(places)
        finally:
            del vars(self)["weight"]
            cast(Any, self).padding_idx = padding

    def look_up(self, entries: Tensor) -> Tensor:
        """Some rows of the matrix, float32 `[n, width]`."""
        some = take_rows(self.packed, entries)
        return self.matrix()[entries] if some is None else decode(some)

    def extra_repr(self) -> str:
        """Sizes and format for `print(model)`."""
        return f"{self._tree.rows}, {self._tree.cols}, format={self._tree.format!r}"


class Decoded:
    """A decoded matrix that is kept."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.bytes = matrix, matrix.nbytes


@cache
def _make_packed_class(form: type[PackedModule], kind: type[nn.Module]) -> type[PackedModule]:
    """A class `kind` on a stored matrix."""
    return type(f"Packed{kind.__name__}", (form, kind), {})
