"""Inputs rounded token by token: the same numbers on every backend, in the transform's basis, and nothing stored for it."""

import pytest
import torch
from torch import Tensor

from tests.unit.kernels.conftest import Draw
from workbench.kernels import forced_backend, formats
from workbench.kernels.formats.rounding import find_rounding_bits, round_per_token, split_at_rounding
from workbench.kernels.matmul import dispatch
from workbench.kernels.matmul.packed_linear import PackedLinear
from workbench.kernels.packing.packed import Packed, build_ledger


def by_hand(x: Tensor, bits: int) -> Tensor:
    """Token by token and number by number."""
    out = torch.empty_like(x, dtype=torch.float64)
    for token, values in enumerate(x.double()):
        step = max(abs(value) for value in values.tolist()) / (2 ** (bits - 1) - 1)
        out[token] = torch.tensor([round(value / step) * step for value in values.tolist()])
    return out


def rounded(child: Packed, bits: int = 4) -> Packed:
    return Packed("rounded-input", child.rows, child.cols, facts={"bits": bits}, children=(child,))


@pytest.fixture
def draw16() -> Draw:
    return Draw(cols=16)


def inputs(cols: int = 16) -> Tensor:
    return torch.randn(6, cols, generator=torch.Generator().manual_seed(1)) * torch.linspace(0.1, 9, 6)[:, None]


@pytest.mark.parametrize("bits", [4, 5, 8])
def test_each_token_has_its_own_grid(bits: int) -> None:
    x = inputs()
    torch.testing.assert_close(round_per_token(x, bits).abs().amax(1), x.abs().amax(1))
    torch.testing.assert_close(round_per_token(x, bits).double(), by_hand(x, bits), rtol=1e-5, atol=1e-6)
    for token in round_per_token(x, bits):
        assert len(token.unique()) < 2**bits


def test_more_bits_lose_less_and_zeros_stay_zeros() -> None:
    x = inputs()
    lost = [float((round_per_token(x, bits) - x).square().sum()) for bits in range(4, 9)]
    assert lost == sorted(lost, reverse=True)
    assert torch.equal(round_per_token(torch.zeros(2, 5), 8), torch.zeros(2, 5))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=["fp64", "bf16"])
def test_the_type_of_the_input_stays(dtype: torch.dtype) -> None:
    assert round_per_token(inputs().to(dtype), 8).dtype == dtype


def test_rounding_happens_in_the_transforms_basis(draw16) -> None:
    inner = draw16.planes(1, 16, extras=False)
    tree = draw16.hadamard(rounded(inner))
    turned = formats.linear(inputs(), transform_alone(tree))
    expected = by_hand(turned, 4) @ formats.decode(inner).double().T
    torch.testing.assert_close(formats.linear(inputs(), tree).double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(formats.decode(tree), formats.decode(without_rounding(tree)))


def transform_alone(tree: Packed) -> Packed:
    """The same transform around the identity: its product is the transformed input."""
    eye = Packed("dense", tree.cols, tree.cols, {"weight": torch.eye(tree.cols)})
    return Packed(tree.format, tree.cols, tree.cols, tree.tensors, tree.facts, (eye,))


def without_rounding(tree: Packed) -> Packed:
    """The same without rounding."""
    return Packed(tree.format, tree.rows, tree.cols, tree.tensors, tree.facts, tree.children[0].children)


@pytest.mark.parametrize("around", ["nothing", "hadamard", "scaled", "permuted", "permuted-scaled"])
@pytest.mark.parametrize("way", ["decoded", "none", "numba"])
def test_every_way_of_running_rounds_alike(draw16, around: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = rounded(draw16.planes(2, 8, extras=True))
    for name in around.split("-"):
        tree = tree if name == "nothing" else getattr(draw16, name)(tree)
    expected = formats.linear(inputs(), tree)
    monkeypatch.setenv(forced_backend.VARIABLE, "numba" if way == "numba" else "reference")
    layer = PackedLinear(tree, cache="none" if way == "numba" else way)
    for _ in range(2):
        assert (layer(inputs()) - expected).norm() < 2e-4 * expected.norm()
    plain = inputs() @ formats.decode(tree).T
    assert float((plain - expected).norm() / expected.norm()) > 0.01, "4 bits must show"


def test_nothing_is_stored_for_it(draw16) -> None:
    inner = draw16.planes(1, 16, extras=False)
    assert build_ledger(rounded(inner), 1.0).total_bits == build_ledger(inner, 1.0).total_bits


def test_explain_says_it(draw16) -> None:
    tree = draw16.hadamard(rounded(draw16.planes(1, 16, extras=False), 8))
    assert "inputs are rounded to 8 bits per token first" in dispatch.explain(tree).reason
    assert "rounded" not in dispatch.explain(draw16.planes(1, 16, extras=False)).reason


def test_wrappers_are_those_down_to_the_rounding(draw16) -> None:
    inner = draw16.scaled(draw16.planes(1, 16, extras=False))
    tree = draw16.hadamard(rounded(inner, 6))
    wrappers, held = split_at_rounding(tree)
    assert [node.format for node in wrappers] == ["hadamard", "rounded-input"]
    assert held is inner
    assert find_rounding_bits(tree) == 6
    assert split_at_rounding(inner) == ([], inner)
    assert find_rounding_bits(draw16.sum()) is None
