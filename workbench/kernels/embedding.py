"""PackedEmbedding: an embedding that holds a stored matrix and decodes the rows that are looked up."""

from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from workbench.kernels.matrix import PackedMatrix
from workbench.kernels.mode import Cache
from workbench.kernels.packed import Packed
from workbench.kernels.reference.format import decode
from workbench.kernels.rows import take_rows


class PackedEmbedding(PackedMatrix):
    """An embedding of any class on a stored `[entries, width]` matrix: its own forward pass runs on the rows it looks up.

    Only these rows are decoded. Where a format keeps rows together (trellises, parity checks, masks of single weights) the whole
    matrix is: once with cache "decoded", which keeps it in float32, at every call with "none".
    """

    keeps_decoded: bool

    @classmethod
    def instead_of(cls, module: nn.Embedding, packed: Packed, *, cache: Cache = "decoded") -> "PackedEmbedding":
        """The stored form of an embedding, with everything else that its class holds."""
        kind = cast(Any, packed_class)(type(module))
        made: PackedEmbedding = object.__new__(kind)
        made.__dict__.update(vars(module))
        for name in ("_parameters", "_buffers", "_modules"):
            made.__dict__[name] = dict(vars(module)[name])
        del made._parameters["weight"]
        made.hold(packed)
        made.keeps_decoded = cache == "decoded"
        return made

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
        packed = self.packed
        some = take_rows(packed, entries)
        if some is not None:
            return decode(some)
        if not self.keeps_decoded:
            return decode(packed)[entries]
        if "reference" not in self._prepared:
            self._prepared["reference"] = Decoded(decode(packed))
        return self._prepared["reference"].matrix[entries]

    def extra_repr(self) -> str:
        """Sizes and format for `print(model)`."""
        return f"{self._tree.rows}, {self._tree.cols}, format={self._tree.format!r}"


class Decoded:
    """A decoded matrix that is kept."""

    def __init__(self, matrix: Tensor) -> None:
        self.matrix, self.bytes = matrix, matrix.nbytes


@cache
def packed_class(kind: type[nn.Embedding]) -> type[PackedEmbedding]:
    """An embedding class `kind` on a stored matrix."""
    return type(f"Packed{kind.__name__}", (PackedEmbedding, kind), {})
