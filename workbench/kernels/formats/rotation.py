"""Format `rotated`: T = Λ D± R H applied to the input, as BTC-LLM learns it. R is orthogonal for any stored numbers.

R = R₁ ⊗ R₂ with Rᵢ = (I − Aᵢ)(I + Aᵢ)⁻¹ (Cayley) and Aᵢ skew: only the upper triangles of A₁ and A₂ are stored, half the numbers
of the matrices themselves, and no rounding of them can make R anything but a rotation. H is the fixed Hadamard transform of
`transforms.hadamard`, which costs no bits; without it T = Λ D± R.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor

from workbench.kernels.formats.transforms import Transformed, count_hadamard_ops, hadamard, invert_hadamard
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.kernels.packing.tensor_spec import FactSpec, TensorSpec, declare_code_stream, declare_finite_numbers, declare_flag
from workbench.registry import register

ANGLES = ("left", "right")  # tensors that hold upper triangles


@register("format", "rotated")
class Rotated(Transformed):
    """W' = W Λ⁻¹ D R H, x' = x Λ D R H; each of the four may be absent. Λ and D can be folded into the norm before the layer.

    Tensors `gain` fp16 `[cols]` (the diagonal of Λ, positive), `signs` 1 bit `[cols]` (1: +1), and for fact `factors` [a, b]
    with a · b = cols `left` fp16 `[a (a−1)/2]`, `right` fp16 `[b (b−1)/2]`: the skew matrices' upper triangles in row order;
    a factor of size 1 stores nothing. Fact `hadamard`: whether H is there.
    """

    items: ClassVar = {
        "gain": "learned factor of each input, one a column",
        "signs": "learned sign of each input, one bit a column",
        "left": "learned rotation among groups of inputs: upper triangle of its Cayley matrix",
        "right": "learned rotation inside groups of inputs: upper triangle of its Cayley matrix",
    }

    @classmethod
    def facts(cls, packed: Packed) -> Iterator[tuple[str, FactSpec]]:
        """See `Format`."""
        yield (
            "factors",
            FactSpec(f"two integers whose product is {packed.cols}", lambda value: _is_pair(value, packed.cols), optional=True),
        )
        yield "hadamard", declare_flag()

    @classmethod
    def tensors(cls, packed: Packed, mask: Tensor | None) -> Iterator[tuple[str, TensorSpec]]:
        """See `Format`."""
        yield "gain", declare_finite_numbers(packed.cols, optional=True)
        yield "signs", declare_code_stream(packed.cols, 1, optional=True)
        for side, size in zip(ANGLES, packed.facts.get("factors", ()), strict=False):
            if size > 1:
                yield side, declare_finite_numbers(size * (size - 1) // 2)

    @classmethod
    def input(cls, x: Tensor, packed: Packed) -> Tensor:
        """x Λ D R H."""
        return _apply_stored_hadamard(
            rotate(x * decode_diagonal(packed, 1).to(x), *(r.to(x) for r in decode_rotations(packed))), packed
        )

    @classmethod
    def undo(cls, w: Tensor, packed: Packed) -> Tensor:
        """W' Hᵀ Rᵀ D Λ."""
        w = invert_hadamard(w, torch.ones_like(w[0])) if packed.facts.get("hadamard") else w
        return rotate(w, *(r.mT.to(w) for r in decode_rotations(packed))) * decode_diagonal(packed, 1).to(w)

    @classmethod
    def apply(cls, w: Tensor, packed: Packed) -> Tensor:
        """W' = W Λ⁻¹ D R H."""
        return _apply_stored_hadamard(
            rotate(w * decode_diagonal(packed, -1).to(w), *(r.to(w) for r in decode_rotations(packed))), packed
        )

    @classmethod
    def multiply_adds(cls, packed: Packed) -> int:
        """Λ one a column, R the sum of its factors, H its own; signs are free, and what was folded is not stored here."""
        sizes = sum(size for size in packed.facts.get("factors", ()) if size > 1)
        gain, h = "gain" in packed.tensors, packed.facts.get("hadamard")
        return packed.cols * (sizes + gain) + (count_hadamard_ops(packed.cols) if h else 0)


def _is_pair(value: Any, product: int) -> bool:
    """Whether these are two integers, at least 1, with this product."""
    pair = isinstance(value, list | tuple) and len(value) == 2 and all(type(size) is int and size > 0 for size in value)
    return pair and value[0] * value[1] == product


def _apply_stored_hadamard(x: Tensor, packed: Packed) -> Tensor:
    """x H, or x where there is no H."""
    return hadamard(x, torch.ones_like(x[0])) if packed.facts.get("hadamard") else x


def decode_diagonal(packed: Packed, power: int) -> Tensor:
    """The diagonal of Λ^power D, float64 `[cols]`."""
    value = torch.ones(packed.cols, dtype=torch.float64)
    if "gain" in packed.tensors:
        value = packed.tensors["gain"].to(torch.float64) ** power
    if "signs" in packed.tensors:
        bits = bitpack.unpack(packed.tensors["signs"], 1, packed.cols)
        value = value.to(bits.device) * (2 * bits - 1)
    return value


def decode_rotations(packed: Packed) -> tuple[Tensor, ...]:
    """R₁ and R₂ in float64, or nothing where no rotation is stored."""
    if "factors" not in packed.facts:
        return ()
    sizes = zip(ANGLES, packed.facts["factors"], strict=True)
    return tuple(
        compute_cayley_rotation(packed.tensors[side].double(), size) if size > 1 else torch.ones(1, 1).double()
        for side, size in sizes
    )


def compute_cayley_rotation(upper: Tensor, size: int) -> Tensor:
    """The rotation (I − A)(I + A)⁻¹ `[size, size]` of the skew matrix A with this upper triangle `[size (size−1)/2]`."""
    row, col = torch.triu_indices(size, size, 1, device=upper.device)
    a = torch.zeros(size, size, dtype=upper.dtype, device=upper.device).index_put((row, col), upper)
    a = a - a.mT
    eye = torch.eye(size, dtype=upper.dtype, device=upper.device)
    # (I + A)⁻¹ and (I − A) commute
    return torch.linalg.solve(eye + a, eye - a)


def rotate(x: Tensor, left: Tensor | None = None, right: Tensor | None = None) -> Tensor:
    """x (R₁ ⊗ R₂) over the last dimension: x as a matrix `[a, b]` becomes R₁ᵀ x R₂."""
    if left is None or right is None:
        return x
    grid = x.reshape(*x.shape[:-1], len(left), len(right))
    return (left.mT @ (grid @ right)).reshape(x.shape)


def find_factor_pair(cols: int) -> tuple[int, int]:
    """a · b = cols with a ≤ b as near as they get; (1, cols), a full rotation, for a prime width."""
    a = next(a for a in range(int(cols**0.5), 0, -1) if cols % a == 0)
    return a, cols // a
