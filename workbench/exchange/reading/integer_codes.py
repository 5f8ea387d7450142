"""The codes of a matrix as whole numbers, with what turns them into weights: common to other programs' formats and ours.

Rows are outputs and columns inputs; a scale is for a row and a group of `span` columns.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class GridCodes:
    """scale · (code − zero): `codes [rows, cols]` from 0 to 2^bits − 1, `scales` float32 and `zeros`, both `[rows, groups]`."""

    codes: Tensor
    zeros: Tensor
    scales: Tensor
    bits: int
    span: int


@dataclass(frozen=True)
class TritCodes:
    """scale · trit: `trits [rows, cols]` of -1, 0 and 1, `scales [rows, groups]` float32."""

    trits: Tensor
    scales: Tensor
    span: int


@dataclass(frozen=True)
class SignCodes:
    """Plus or minus scale: `signs [rows, cols]`, 1 for plus and 0 for minus, `scales [rows, groups]` float32."""

    signs: Tensor
    scales: Tensor
    span: int


Codes = GridCodes | TritCodes | SignCodes


def arrange_rows(codes: Codes, change: Callable[[Tensor], Tensor]) -> Codes:
    """The same codes after `change`, which puts the rows of a matrix in another order."""
    if isinstance(codes, GridCodes):
        return GridCodes(change(codes.codes), change(codes.zeros), change(codes.scales), codes.bits, codes.span)
    if isinstance(codes, TritCodes):
        return TritCodes(change(codes.trits), change(codes.scales), codes.span)
    return SignCodes(change(codes.signs), change(codes.scales), codes.span)
