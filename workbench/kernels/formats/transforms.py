"""Formats that change the basis of the input at run time and wrap one child: `permuted`, `hadamard`, `scaled`.

The child stores W'; `linear` transforms the input, `decode` undoes the transform on the child's matrix. The functions below
work on the last dimension, so weights `[rows, cols]` and inputs `[..., cols]` use the same ones.
"""

import functools
import math
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from workbench.errors import ShapeError
from workbench.kernels.formats.codebook import compute_index_width
from workbench.kernels.formats.format import Format, decode, find, linear
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.kernels.packing.tensor_spec import TensorSpec, declare_code_stream, declare_finite_numbers, declare_order_stream
from workbench.registry import register


class Transformed(Format):
    """A wrapped child whose codes are in another basis; a mask belongs inside it, never around it."""

    children: ClassVar = (1, 1)

    @classmethod
    def input(cls, x: Tensor, packed: Packed) -> Tensor:
        """x', the input in the child's basis."""
        raise NotImplementedError

    @classmethod
    def apply(cls, w: Tensor, packed: Packed) -> Tensor:
        """W' from W; the same as the input's change where that is orthogonal."""
        return cls.input(w, packed)

    @classmethod
    def undo(cls, w: Tensor, packed: Packed) -> Tensor:
        """W from W'."""
        raise NotImplementedError

    @classmethod
    def multiply_adds(cls, packed: Packed) -> int:
        """What the change of the input costs for each token."""
        raise NotImplementedError

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """The child's matrix, back in the basis of the input."""
        if mask is not None:
            raise ShapeError(f"format {packed.format!r} cannot be masked; put the mask inside the transform.")
        return cls.undo(decode(packed.children[0]), packed)

    @classmethod
    def linear(cls, x: Tensor, packed: Packed) -> Tensor:
        """The child's product with the transformed input."""
        return linear(cls.input(x, packed), packed.children[0])


def strip_transforms(packed: Packed, weight: Tensor, path: str = "") -> tuple[Packed, Tensor, str]:
    """The node below all transforms of a tree, `weight [rows, cols]` in its basis (W'), and the node's path (see `walk`)."""
    while issubclass(kind := find(packed), Transformed):
        weight, packed, path = kind.apply(weight, packed), packed.children[0], f"{path}0."
    return packed, weight, path


@register("format", "permuted")
class Permuted(Transformed):
    """W' = W[:, order], x' = x[..., order]. Tensor `order`: stream of max(1, ceil(log2 cols)) bits, `[cols]`."""

    items: ClassVar = {"order": "which input each stored column belongs to"}

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """See `Format`."""
        yield "order", declare_order_stream(packed.cols, compute_index_width(packed.cols))

    @classmethod
    def input(cls, x: Tensor, packed: Packed) -> Tensor:
        """x[..., order]."""
        return x[..., unpack_order(packed)]

    @classmethod
    def multiply_adds(cls, packed: Packed) -> int:
        """None: numbers only move."""
        return 0

    @classmethod
    def undo(cls, w: Tensor, packed: Packed) -> Tensor:
        """W with W[:, order] = W'."""
        return w[..., torch.argsort(unpack_order(packed))]


def unpack_order(packed: Packed) -> Tensor:
    """The stored column order, int64 `[cols]`."""
    return bitpack.unpack(packed.tensors["order"], compute_index_width(packed.cols), packed.cols).to(torch.int64)


@register("format", "scaled")
class Scaled(Transformed):
    """W' = W · s by columns, x' = x / s. Tensor `scale` fp16 `[cols]`."""

    items: ClassVar = {"scale": "factor of each input, one a column"}

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """See `Format`."""
        yield "scale", declare_finite_numbers(packed.cols, zero=False)

    @classmethod
    def input(cls, x: Tensor, packed: Packed) -> Tensor:
        """x / s."""
        return x / packed.tensors["scale"].to(x.dtype)

    @classmethod
    def apply(cls, w: Tensor, packed: Packed) -> Tensor:
        """W · s."""
        return w * packed.tensors["scale"].to(w.dtype)

    @classmethod
    def multiply_adds(cls, packed: Packed) -> int:
        """One a column."""
        return packed.cols

    @classmethod
    def undo(cls, w: Tensor, packed: Packed) -> Tensor:
        """W' / s."""
        return w / packed.tensors["scale"].to(w.dtype)


@register("format", "hadamard")
class Hadamard(Transformed):
    """W' = W D H, x' = x D H with random signs D and the orthonormal H of `hadamard`. Tensor `signs`: 1 bit, `[cols]`, 1: +1."""

    items: ClassVar = {"signs": "random signs of the Hadamard transform, one bit a column"}

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """See `Format`."""
        yield "signs", declare_code_stream(packed.cols, 1)

    @classmethod
    def input(cls, x: Tensor, packed: Packed) -> Tensor:
        """x D H."""
        return hadamard(x, unpack_signs(packed))

    @classmethod
    def multiply_adds(cls, packed: Packed) -> int:
        """Those of H; signs are free."""
        return count_hadamard_ops(packed.cols)

    @classmethod
    def undo(cls, w: Tensor, packed: Packed) -> Tensor:
        """W' Hᵀ D."""
        return invert_hadamard(w, unpack_signs(packed))


def unpack_signs(packed: Packed) -> Tensor:
    """The stored signs as ±1, float32 `[cols]`."""
    return bitpack.unpack(packed.tensors["signs"], 1, packed.cols).to(torch.float32) * 2 - 1


def hadamard(x: Tensor, signs: Tensor) -> Tensor:
    """x D H over the last dimension: signs ±1 `[cols]`, then an orthonormal H of any width.

    H = S ⊗ Q for cols = 2^p · k with k odd: S is Sylvester's Hadamard matrix over √2^p, Q the orthonormal DCT-II of size k
    (as in QuIP#, arXiv 2402.04396, which looks up a small Hadamard factor instead and so needs one to exist).
    """
    power, odd = split_power_of_two(x.shape[-1])
    blocks = (x * signs.to(x.dtype)).reshape(-1, power, odd) @ build_cosine_matrix(odd).to(x)
    return apply_butterflies(blocks).reshape(x.shape)


def invert_hadamard(x: Tensor, signs: Tensor) -> Tensor:
    """x Hᵀ D, the exact inverse of `hadamard` (S is symmetric, so only Q is transposed)."""
    power, odd = split_power_of_two(x.shape[-1])
    blocks = apply_butterflies(x.reshape(-1, power, odd)) @ build_cosine_matrix(odd).mT.to(x)
    return blocks.reshape(x.shape) * signs.to(x.dtype)


def count_hadamard_ops(cols: int) -> int:
    """Multiply-adds of x H for cols = 2^p · k: p a column for the butterflies, and k where k is not 1."""
    power, odd = split_power_of_two(cols)
    return cols * (power.bit_length() - 1 + (odd if odd > 1 else 0))


def split_power_of_two(cols: int) -> tuple[int, int]:
    """cols = power · odd, where power is the largest power of two in cols."""
    power = cols & -cols
    return power, cols // power


@functools.lru_cache(maxsize=32)
def build_cosine_matrix(size: int) -> Tensor:
    """The orthonormal DCT-II matrix `[size, size]`, float64; columns are the basis vectors."""
    centre, wave = torch.arange(size, dtype=torch.float64) + 0.5, torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * centre[:, None] * wave) * math.sqrt(2 / size)
    matrix[:, 0] /= math.sqrt(2)
    return matrix


def apply_butterflies(x: Tensor) -> Tensor:
    """Sylvester's Hadamard matrix over √power, applied to the middle dimension of `x [n, power, odd]` in log2(power) passes."""
    n, power, odd = x.shape
    half = 1
    while half < power:
        pairs = x.reshape(n, power // (2 * half), 2, half, odd)
        x = torch.stack((pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]), 2)
        half *= 2
    return x.reshape(n, power, odd) / math.sqrt(power)
