"""Format `parity-signs`: one sign plane of which the signs that parity checks determine are not stored."""

from typing import ClassVar

import torch
from torch import Tensor

from workbench.errors import ShapeError
from workbench.kernels import bitpack
from workbench.kernels.packed import Packed
from workbench.kernels.parity import ParityCode
from workbench.kernels.reference.format import Format, over_columns
from workbench.registry import register


@register("format", "parity-signs")
class ParitySigns(Format):
    """value = scale · column_scale · sign + mean, where every column's signs obey the parity checks of `kernels.parity`.

    Facts: `length` and `checks` of the code, `span` columns a group. Tensors: `signs` (stream of 1 bit, 1 is −1, of the rows that
    are stored), `scale` fp16 `[rows, groups]`, optional `column_scale` fp16 `[cols]`, optional `mean` fp16 `[rows, groups]`.
    """

    items: ClassVar = {
        "signs": "one bit for each sign that no parity check determines",
        "scale": "magnitude, one a row and group",
        "column_scale": "magnitude, one a column",
        "mean": "offset, one a row and group",
    }

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """scale · column_scale · sign + mean."""
        if mask is not None:
            raise ShapeError("format 'parity-signs' stores whole columns and cannot be masked; use it for the whole matrix.")
        span = packed.facts["span"]
        value = over_columns(packed.tensors["scale"], span, packed.cols)
        if "column_scale" in packed.tensors:
            value = value * packed.tensors["column_scale"].to(torch.float32)
        value = torch.where(negative(packed), -value, value)
        if "mean" in packed.tensors:
            value = value + over_columns(packed.tensors["mean"], span, packed.cols)
        return value


def negative(packed: Packed) -> Tensor:
    """Which signs are −1, bool `[rows, cols]`."""
    code = ParityCode(packed.facts["length"], packed.facts["checks"])
    count = int(code.stored(packed.rows).sum())
    bits = bitpack.unpack(packed.tensors["signs"], 1, count * packed.cols).view(count, packed.cols)
    return code.complete(bits.bool(), packed.rows)
