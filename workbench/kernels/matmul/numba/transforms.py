"""Transforms of inputs into the stored basis; everything that does not depend on the inputs is computed once."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workbench.kernels.formats import rotation, rounding, transforms
from workbench.kernels.jit.cached_njit import compile_cached
from workbench.kernels.packing.packed import Packed


@dataclass(frozen=True)
class Transform:
    """x', the input in the child's basis, for `x [n, cols]`; `bytes` are held for it."""

    apply: Callable[[Tensor], Tensor]
    bytes: int


def prepare(packed: Packed) -> Transform:
    """The transform of a node that changes its inputs."""
    if packed.format == "rounded-input":
        return Transform(lambda x: rounding.round_per_token(x, packed.facts["bits"]), 0)
    return {
        "permuted": _prepare_permutation,
        "scaled": _prepare_scaling,
        "hadamard": _prepare_hadamard,
        "rotated": _prepare_rotation,
    }[packed.format](packed)


def _prepare_permutation(packed: Packed) -> Transform:
    """x[:, order]."""
    order = transforms.unpack_order(packed)
    return Transform(lambda x: x[:, order], order.nbytes)


def _prepare_scaling(packed: Packed) -> Transform:
    """x / s."""
    scale = packed.tensors["scale"].to(torch.float32)
    return Transform(lambda x: x / scale, scale.nbytes)


def _prepare_rotation(packed: Packed) -> Transform:
    """x Λ D R H, with R = R₁ ⊗ R₂ solved for once."""
    diagonal = rotation.decode_diagonal(packed, 1).to(torch.float32)
    factors = tuple(factor.to(torch.float32) for factor in rotation.decode_rotations(packed))
    bytes_held = sum(t.nbytes for t in (diagonal, *factors))
    if not packed.facts.get("hadamard"):
        return Transform(lambda x: rotation.rotate(x * diagonal, *factors), bytes_held)
    after = _prepare_signed_hadamard(torch.ones(packed.cols))
    return Transform(lambda x: after.apply(rotation.rotate(x * diagonal, *factors)), bytes_held + after.bytes)


def _prepare_hadamard(packed: Packed) -> Transform:
    """x D H."""
    return _prepare_signed_hadamard(transforms.unpack_signs(packed))


def _prepare_signed_hadamard(signs: Tensor) -> Transform:
    """x D H for signs D `[cols]`, with H = S ⊗ Q as in the reference; S in place, in log2 passes."""
    power, odd = transforms.split_power_of_two(len(signs))
    signs = signs / power**0.5
    factor = transforms.build_cosine_matrix(odd).to(torch.float32)

    def apply(x: Tensor) -> Tensor:
        blocks = x * signs
        if odd > 1:
            blocks = (blocks.view(-1, odd) @ factor).view(x.shape)
        apply_butterflies(blocks.numpy(), odd)
        return blocks

    return Transform(apply, signs.nbytes + factor.nbytes)


@compile_cached
def apply_butterflies(x: np.ndarray, odd: int) -> None:
    """Sylvester's Hadamard matrix, not normalised, over places `odd` apart of each row of `x [n, cols]`, in place."""
    for i in range(len(x)):
        row = x[i]
        half = odd
        while half < len(row):
            for start in range(0, len(row), 2 * half):
                low, high = row[start : start + half], row[start + half : start + 2 * half]
                for j in range(half):
                    a, b = low[j], high[j]
                    low[j], high[j] = a + b, a - b
            half *= 2
