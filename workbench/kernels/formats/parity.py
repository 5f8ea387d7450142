"""Format `parity-signs`: one sign plane of which the signs that parity checks determine are not stored."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from workbench.errors import ShapeError
from workbench.kernels.formats.codebook import magnitudes, scale_specs
from workbench.kernels.formats.format import Format, over_columns, span_fact, with_codes
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.kernels.packing.parity_code import ParityCode
from workbench.kernels.packing.tensor_spec import FactSpec, TensorSpec, code_stream, integer
from workbench.kernels.search import parity_search
from workbench.registry import register

LONGEST = 1000  # signs of a code


@register("format", "parity-signs")
class ParitySigns(Format):
    """value = scale · column_scale · sign + mean, where every column's signs obey the parity checks of `packing.parity_code`.

    Facts: `length` and `checks` of the code, `span` columns a group. Tensors: `signs` (stream of 1 bit, 1 is −1, of the rows that
    are stored), `scale` fp16 `[rows, groups]`, optional `column_scale` fp16 `[cols]`, optional `mean` fp16 `[rows, groups]`.
    """

    paths: ClassVar = True
    items: ClassVar = {
        "signs": "one bit for each sign that no parity check determines",
        "scale": "magnitude, one a row and group",
        "column_scale": "magnitude, one a column",
        "mean": "offset, one a row and group",
    }

    @classmethod
    def facts(cls, packed: Packed) -> Iterator[tuple[str, FactSpec]]:
        """See `Format`."""
        yield "length", integer(2, LONGEST)
        yield "checks", integer(1, packed.facts["length"] - 1)
        yield span_fact(packed)

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """See `Format`."""
        yield "signs", code_stream(code_of(packed).stored_count(packed.rows) * packed.cols, 1)
        yield from scale_specs(packed)

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """scale · column_scale · sign + mean."""
        check_unmasked(packed, mask)
        sizes = magnitudes(packed)
        return torch.where(negative(packed), -sizes, sizes) + means(packed)

    @classmethod
    def nearest(cls, packed: Packed, target: Tensor, mask: Tensor | None = None) -> Packed:
        """The signs under the checks that leave the least squared error, column by column."""
        check_unmasked(packed, mask)
        code, pull = code_of(packed), magnitudes(packed) * (target - means(packed))
        nearest_signs = parity_search.nearest(pull / pull.abs().amax().clamp(min=torch.finfo(torch.float32).tiny), code)
        return with_codes(packed, "signs", nearest_signs[code.stored(packed.rows)], 1, None)


def check_unmasked(packed: Packed, mask: Tensor | None) -> None:
    """Raise ShapeError where single weights are asked for."""
    if mask is not None:
        raise ShapeError(f"format {packed.format!r} stores whole columns and cannot be masked; use it for the whole matrix.")


def means(packed: Packed) -> Tensor:
    """The offsets, float32 `[rows, cols]`, or 0."""
    if "mean" not in packed.tensors:
        return torch.zeros((), device=packed.tensors["scale"].device)
    return over_columns(packed.tensors["mean"], packed.facts["span"], packed.cols)


def code_of(packed: Packed) -> ParityCode:
    """The parity checks."""
    return ParityCode(packed.facts["length"], packed.facts["checks"])


def negative(packed: Packed) -> Tensor:
    """Which signs are −1, bool `[rows, cols]`."""
    code = code_of(packed)
    count = int(code.stored(packed.rows).sum())
    bits = bitpack.unpack(packed.tensors["signs"], 1, count * packed.cols).view(count, packed.cols)
    return parity_search.complete(bits.bool(), code, packed.rows)
