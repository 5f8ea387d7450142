"""The learned transform's stored form: orthogonal whatever is stored, exactly undone, and as cheap as it says."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.kernels import formats
from workbench.kernels.formats.rotation import Rotated, compute_cayley_rotation, decode_rotations, find_factor_pair, rotate
from workbench.kernels.packing.packed import Packed, count_stored_bits

WIDTHS = [2, 7, 12, 64, 203, 256]


def node(cols: int, size: float = 1.0, seed: int = 0, *, hadamard: bool = False) -> Packed:
    """A random transform of all three factors around nothing, with the Hadamard transform after them or not."""
    draw = torch.Generator().manual_seed(seed)
    factors = find_factor_pair(cols)
    sides = {side: n for side, n in zip(("left", "right"), factors, strict=True) if n > 1}
    tensors = {side: (size * torch.randn(n * (n - 1) // 2, generator=draw)).half() for side, n in sides.items()}
    tensors["gain"] = (0.5 + torch.rand(cols, generator=draw)).half()
    tensors["signs"] = torch.randint(0, 256, (-(-cols // 8),), generator=draw).to(torch.uint8)
    return Packed("rotated", 1, cols, tensors, {"factors": list(factors), "hadamard": hadamard})


@given(st.integers(2, 40), st.sampled_from([0.0, 1e-3, 1.0, 100.0]), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_whatever_is_stored_is_a_rotation(size: int, spread: float, seed: int) -> None:
    upper = spread * torch.randn(size * (size - 1) // 2, generator=torch.Generator().manual_seed(seed)).half().double()
    r = compute_cayley_rotation(upper, size)
    torch.testing.assert_close(r @ r.mT, torch.eye(size).double(), rtol=0, atol=1e-12)
    assert torch.linalg.det(r).item() == pytest.approx(1)


@pytest.mark.parametrize("cols", WIDTHS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)], ids=["fp64", "fp32"])
@pytest.mark.parametrize("hadamard", [False, True], ids=["plain", "hadamard"])
def test_undo_is_the_inverse_and_the_output_stays(cols: int, dtype: torch.dtype, tolerance: float, hadamard: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    w = torch.randn(5, cols, generator=draw, dtype=torch.float64).to(dtype)
    x = torch.randn(3, cols, generator=draw, dtype=torch.float64).to(dtype)
    packed = node(cols, hadamard=hadamard)
    inner = Rotated.apply(w, packed)
    torch.testing.assert_close(Rotated.undo(inner, packed), w, rtol=tolerance, atol=tolerance)
    scale = cols**0.5
    torch.testing.assert_close(Rotated.input(x, packed) @ inner.mT / scale, x @ w.mT / scale, rtol=tolerance, atol=tolerance)


def test_gain_and_signs_fold_into_what_multiplies_the_input() -> None:
    packed = node(12)
    x = torch.randn(4, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    gamma = torch.linspace(0.5, 2, 12, dtype=torch.float64)
    folded = (
        gamma
        * packed.tensors["gain"].double()
        * (2.0 * torch.tensor([packed.tensors["signs"][i // 8] >> i % 8 & 1 for i in range(12)]) - 1)
    )
    torch.testing.assert_close(rotate(x * folded, *decode_rotations(packed)), Rotated.input(x * gamma, packed))


def test_absent_factors_are_the_identity() -> None:
    w = torch.randn(2, 6, generator=torch.Generator().manual_seed(3))
    packed = Packed("rotated", 2, 6, children=(Packed("dense", 2, 6, {"weight": w}),))
    assert torch.equal(formats.decode(packed), w)
    assert Rotated.multiply_adds(packed) == 0


@pytest.mark.parametrize(
    ("cols", "pair"), [(1, (1, 1)), (7, (1, 7)), (256, (16, 16)), (768, (24, 32)), (4096, (64, 64)), (11008, (86, 128))]
)
def test_factors_are_as_near_as_they_get(cols: int, pair: tuple[int, int]) -> None:
    assert find_factor_pair(cols) == pair


def test_cost_and_bits_of_a_width_of_4096() -> None:
    packed = node(4096)
    assert Rotated.multiply_adds(packed) == 4096 * (1 + 128)
    assert Rotated.multiply_adds(node(4096, hadamard=True)) == 4096 * (1 + 128 + 12)
    assert Rotated.multiply_adds(Packed("rotated", 1, 768, facts={"hadamard": True})) == 768 * (8 + 3)
    assert count_stored_bits(packed.tensors["left"]) == 16 * 64 * 63 // 2
