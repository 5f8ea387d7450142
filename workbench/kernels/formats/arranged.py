"""Formats that arrange the matrices inside them: `transposed`, `rows` (each row from one child), `offset` and `fourier`.

A block of a key-value cache is stored with them: its scales belong to channels or to tokens, and some of either are stored finer.
"""

import math
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from workbench.errors import ShapeError
from workbench.kernels.formats.format import Format, Shape, count_groups, declare_span_fact, decode, expand_groups
from workbench.kernels.formats.transforms import Transformed
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.kernels.packing.tensor_spec import FactSpec, TensorSpec, declare_code_stream, declare_finite_numbers
from workbench.registry import register


def _check_whole(packed: Packed, mask: Tensor | None) -> None:
    """Raise ShapeError where single weights are asked for."""
    if mask is not None:
        raise ShapeError(f"format {packed.format!r} holds whole matrices and cannot be masked; use it outside of masks.")


@register("format", "transposed")
class Transposed(Format):
    """The child's matrix with rows and columns exchanged; nothing is stored."""

    children: ClassVar = (1, 1)
    items: ClassVar = {}

    @classmethod
    def parts(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[Shape, Tensor | None]]:
        """See `Format`."""
        yield (packed.cols, packed.rows), None

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """The child's matrix, transposed."""
        _check_whole(packed, mask)
        return decode(packed.children[0]).mT


@register("format", "rows")
class Rows(Format):
    """Rows of the first child, and of the second where tensor `map` (1 bit, `[rows]`) is 1; each holds its own in order."""

    children: ClassVar = (2, 2)
    items: ClassVar = {"map": "which coder owns which row"}

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """See `Format`."""
        yield "map", declare_code_stream(packed.rows, 1)

    @classmethod
    def parts(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[Shape, Tensor | None]]:
        """See `Format`."""
        second = int(bitpack.unpack(packed.tensors["map"], 1, packed.rows).sum())
        yield (packed.rows - second, packed.cols), None
        yield (second, packed.cols), None

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """Both children's rows in their places."""
        _check_whole(packed, mask)
        owner = bitpack.unpack(packed.tensors["map"], 1, packed.rows).bool()
        value = torch.empty(packed.rows, packed.cols, device=owner.device)
        value[~owner], value[owner] = (decode(child) for child in packed.children)
        return value


@register("format", "offset")
class Offset(Format):
    """The child plus tensor `offset` fp16 `[rows, groups]`, one a row and group of fact `span` columns."""

    children: ClassVar = (1, 1)
    items: ClassVar = {"offset": "where the grid begins, one a row and group"}

    @classmethod
    def facts(cls, packed: Packed) -> Iterator[tuple[str, FactSpec]]:
        """See `Format`."""
        yield declare_span_fact(packed)

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """See `Format`."""
        yield "offset", declare_finite_numbers(packed.rows, count_groups(packed))

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """child + offset."""
        _check_whole(packed, mask)
        return decode(packed.children[0]) + expand_groups(packed.tensors["offset"], packed.facts["span"], packed.cols)


@register("format", "fourier")
class Fourier(Transformed):
    """W' = W F, x' = x F with the orthonormal real Fourier transform F of `fourier`; nothing is stored."""

    items: ClassVar = {}

    @classmethod
    def input(cls, x: Tensor, packed: Packed) -> Tensor:
        """x F."""
        return fourier(x)

    @classmethod
    def undo(cls, w: Tensor, packed: Packed) -> Tensor:
        """W' Fᵀ."""
        return invert_fourier(w)

    @classmethod
    def multiply_adds(cls, packed: Packed) -> int:
        """Those of a fast transform: cols · log₂ cols."""
        return packed.cols * max(packed.cols - 1, 0).bit_length()


def fourier(x: Tensor) -> Tensor:
    """The real Fourier coefficients of `x [..., n]`: n real numbers for n, since those of negative frequencies are conjugates.

    In this order: frequency 0, real parts of 1 … (n−1)/2 times √2, for even n that of n/2, imaginary parts times √2.
    """
    n = x.shape[-1]
    spectrum = torch.fft.rfft(x.float(), norm="ortho")
    real, pairs = spectrum.real.clone(), (n - 1) // 2
    real[..., 1 : pairs + 1] *= math.sqrt(2)
    return torch.cat([real, math.sqrt(2) * spectrum.imag[..., 1 : pairs + 1]], -1).to(x.dtype)


def invert_fourier(x: Tensor) -> Tensor:
    """The inverse of `fourier`, which is its transpose."""
    n = x.shape[-1]
    pairs, size = (n - 1) // 2, n // 2 + 1
    real, imaginary = x[..., :size].float().clone(), torch.zeros_like(x[..., :size], dtype=torch.float32)
    real[..., 1 : pairs + 1] /= math.sqrt(2)
    imaginary[..., 1 : pairs + 1] = x[..., size:].float() / math.sqrt(2)
    return torch.fft.irfft(torch.complex(real, imaginary), n, norm="ortho").to(x.dtype)
