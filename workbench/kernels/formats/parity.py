"""Format `parity-signs`: one sign plane without the signs that parity checks determine."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from workbench.errors import ShapeError
from workbench.kernels.formats.codebook import compute_magnitudes, declare_scale_tensors
from workbench.kernels.formats.format import Format, declare_span_fact, expand_groups, replace_codes
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.kernels.packing.parity_code import ParityCode
from workbench.kernels.packing.tensor_spec import FactSpec, TensorSpec, declare_code_stream, declare_integer
from workbench.kernels.search import parity_search
from workbench.registry import register

MAX_PARITY_SIGNS = 1000  # signs of a code


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
        yield "length", declare_integer(2, MAX_PARITY_SIGNS)
        yield "checks", declare_integer(1, packed.facts["length"] - 1)
        yield declare_span_fact(packed)

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """See `Format`."""
        yield "signs", declare_code_stream(_build_parity_code(packed).stored_count(packed.rows) * packed.cols, 1)
        yield from declare_scale_tensors(packed)

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """scale · column_scale · sign + mean."""
        _check_unmasked(packed, mask)
        sizes = compute_magnitudes(packed)
        return torch.where(find_negative_signs(packed), -sizes, sizes) + _expand_means(packed)

    @classmethod
    def nearest(cls, packed: Packed, target: Tensor, mask: Tensor | None = None) -> Packed:
        """The signs under the checks that leave the least squared error, column by column."""
        _check_unmasked(packed, mask)
        code, pull = _build_parity_code(packed), compute_magnitudes(packed) * (target - _expand_means(packed))
        nearest_signs = parity_search.find_nearest_signs(
            pull / pull.abs().amax().clamp(min=torch.finfo(torch.float32).tiny), code
        )
        return replace_codes(packed, "signs", nearest_signs[code.stored(packed.rows)], 1, None)


def _check_unmasked(packed: Packed, mask: Tensor | None) -> None:
    """Raise ShapeError where single weights are asked for."""
    if mask is not None:
        raise ShapeError(f"format {packed.format!r} stores whole columns and cannot be masked; use it for the whole matrix.")


def _expand_means(packed: Packed) -> Tensor:
    """The offsets, float32 `[rows, cols]`, or 0."""
    if "mean" not in packed.tensors:
        return torch.zeros((), device=packed.tensors["scale"].device)
    return expand_groups(packed.tensors["mean"], packed.facts["span"], packed.cols)


def _build_parity_code(packed: Packed) -> ParityCode:
    """The parity checks."""
    return ParityCode(packed.facts["length"], packed.facts["checks"])


def find_negative_signs(packed: Packed) -> Tensor:
    """Which signs are −1, bool `[rows, cols]`."""
    code = _build_parity_code(packed)
    count = int(code.stored(packed.rows).sum())
    bits = bitpack.unpack(packed.tensors["signs"], 1, count * packed.cols).view(count, packed.cols)
    return parity_search.complete(bits.bool(), code, packed.rows)
