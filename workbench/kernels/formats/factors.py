"""Format `binary-factors`: two thin sign matrices multiplied, as in LittleBit (arXiv 2506.13771) and NanoQuant (2602.06694)."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from workbench.kernels.formats.format import Format, mask_values
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.kernels.packing.tensor_spec import (
    FactSpec,
    TensorSpec,
    declare_code_stream,
    declare_finite_numbers,
    declare_integer,
)
from workbench.registry import register

MOST_RANK = 1 << 24
LEAST = 0.3  # size of the numbers of signs that hardly matter: much nearer to zero, training flips too many of them at once


@register("format", "binary-factors")
class BinaryFactors(Format):
    """diag(row) · left · diag(middle) · right · diag(column); below one bit a weight where `rank` is small.

    Fact: `rank` r. Tensors: `left` (stream of 1 bit, `[rows, r]`, 1 is +1 and 0 is −1), `right` (the same, `[r, cols]`),
    `row` fp16 `[rows]`, `column` fp16 `[cols]`, optional `middle` fp16 `[r]`.
    """

    maskable: ClassVar = True
    items: ClassVar = {
        "left": "signs of the left factor, one a row and rank",
        "right": "signs of the right factor, one a rank and column",
        "row": "magnitude, one a row",
        "column": "magnitude, one a column",
        "middle": "magnitude, one a rank",
    }

    @classmethod
    def facts(cls, packed: Packed) -> Iterator[tuple[str, FactSpec]]:
        """See `Format`."""
        yield "rank", declare_integer(1, MOST_RANK)

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """See `Format`."""
        rank = packed.facts["rank"]
        yield "left", declare_code_stream(packed.rows * rank, 1)
        yield "right", declare_code_stream(rank * packed.cols, 1)
        yield "row", declare_finite_numbers(packed.rows)
        yield "column", declare_finite_numbers(packed.cols)
        yield "middle", declare_finite_numbers(rank, optional=True)

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """The product in float32; differentiable in the magnitudes."""
        left, right = _decode_factors(packed)
        return mask_values(mask, left @ right)

    @classmethod
    def linear(cls, x: Tensor, packed: Packed) -> Tensor:
        """(x rightᵀ) leftᵀ."""
        left, right = _decode_factors(packed)
        return (x @ right.to(x.dtype).mT) @ left.to(x.dtype).mT

    @classmethod
    def loose(cls, packed: Packed, target: Tensor) -> dict[str, Tensor]:
        """The signs of both factors, each with what its flip adds to the squared error over what the sign itself is worth."""
        rank, tensors = packed.facts["rank"], packed.tensors
        left, right = _decode_factors(packed)
        error = target - left @ right
        left_sign, right_sign = (
            unpack_signs(tensors["left"], packed.rows, rank),
            unpack_signs(tensors["right"], rank, packed.cols),
        )
        worth = left.square() * right.square().sum(1), right.square() * left.square().sum(0)[:, None]
        pulls = (left * (error @ right.mT), right * (left.mT @ error))
        return {
            name: sign * torch.where(weight > 0, 1 + gain / weight, 1.0).clamp(min=LEAST)
            for name, sign, gain, weight in zip(("left", "right"), (left_sign, right_sign), pulls, worth, strict=True)
        }


def _decode_factors(packed: Packed) -> tuple[Tensor, Tensor]:
    """diag(row) · left · diag(middle) `[rows, r]` and right · diag(column) `[r, cols]`, float32."""
    left = unpack_signs(packed.tensors["left"], packed.rows, packed.facts["rank"]) * packed.tensors["row"].float()[:, None]
    right = unpack_signs(packed.tensors["right"], packed.facts["rank"], packed.cols) * packed.tensors["column"].float()
    return (left * packed.tensors["middle"].float() if "middle" in packed.tensors else left), right


def unpack_signs(stream: Tensor, rows: int, cols: int) -> Tensor:
    """±1 `[rows, cols]`, from bits or loose."""
    if stream.is_floating_point():
        return stream
    return bitpack.unpack(stream, 1, rows * cols).view(rows, cols).float() * 2 - 1
