"""Code that multiplies with the weight of a packed layer gets the packed product; whatever else it does is done to the matrix."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from workbench.kernels import formats
from workbench.kernels.matmul import packed_linear
from workbench.kernels.matmul.packed_linear import PackedLinear
from workbench.kernels.matmul.packed_weight import PackedWeight
from workbench.kernels.packing.packed import Packed

ROWS, COLS = 24, 40
X, BIAS = torch.randn(2, 3, COLS, generator=torch.Generator().manual_seed(0)), torch.linspace(-1, 1, ROWS)
PRODUCTS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda w: functional.linear(X, w),
    "linear with a bias": lambda w: functional.linear(X, w, BIAS),
    "linear with a named bias": lambda w: functional.linear(X, w, bias=BIAS),
    "linear with the weight cast": lambda w: functional.linear(X, w.to(X.dtype).float().type(torch.float32)),
    "x @ w.T": lambda w: X @ w.T,
    "x @ w.t()": lambda w: X @ w.t(),
    "x @ w.transpose": lambda w: X @ w.transpose(0, 1) + X @ w.transpose(-1, -2),
    "matmul": lambda w: torch.matmul(X, w.mT),
    "mm": lambda w: torch.mm(X[0], w.T),
    "one input": lambda w: X[0, 0] @ w.T,
    "w @ y": lambda w: w @ X.transpose(1, 2),
    "w @ one input": lambda w: w @ X[1, 2],
    "w.T.T": lambda w: w.T.T @ X[0].T,
}
OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "slice": lambda w: w[3:7, ::2],
    "view": lambda w: w.view(4, 6, COLS).sum(1),
    "arithmetic": lambda w: 2 * w + w.abs(),
    "slice of the transposed": lambda w: w.T[5],
    "product with a slice": lambda w: X @ w[:5].T,
    "product from the other side": lambda w: BIAS @ w,
    "in a list": lambda w: torch.cat([w, w], 1),
    "another type": lambda w: functional.linear(X.double(), w.double()),
    "bfloat16": lambda w: w.to(torch.bfloat16).float(),
    "with itself": lambda w: w @ w.T,
    "einsum": lambda w: torch.einsum("bti,oi->bto", X, w),
    "copy": copy.deepcopy,
    "chunk": lambda w: w.chunk(2)[1],
}


@pytest.fixture
def tree(draw) -> Packed:
    return type(draw)(rows=ROWS, cols=COLS).planes(2, 8, extras=False)


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[Packed]:
    """The trees that layers have decoded for their weight."""
    trees: list[Packed] = []

    def decode(packed: Packed) -> Tensor:
        trees.append(packed)
        return formats.decode(packed)

    monkeypatch.setattr(packed_linear, "decode", decode)
    return trees


@pytest.mark.parametrize("backend", ["numba", "reference"])
@pytest.mark.parametrize("form", PRODUCTS)
def test_a_product_with_the_weight_is_that_of_the_layer(
    tree: Packed, decodings: list[Packed], form: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_KERNELS", backend)
    layer, expected = PackedLinear(tree, torch.ones(ROWS)), PRODUCTS[form](formats.decode(tree))
    y = PRODUCTS[form](layer.weight)
    assert type(y) is Tensor
    torch.testing.assert_close(y, expected, rtol=2e-3, atol=2e-3)
    assert list(layer._prepared) == [backend]
    assert not decodings


@pytest.mark.parametrize("form", OTHERS)
def test_whatever_else_is_done_happens_to_the_matrix_decoded_once(tree: Packed, decodings: list[Packed], form: str) -> None:
    expected = OTHERS[form](formats.decode(tree))
    layer = PackedLinear(tree)
    y = OTHERS[form](layer.weight)
    assert type(y) is Tensor
    assert torch.equal(y, expected)
    assert len(decodings) == 1
    assert not layer._prepared


def test_what_is_known_without_values_decodes_nothing(tree: Packed, decodings: list[Packed]) -> None:
    weight = PackedLinear(tree).weight
    assert isinstance(weight, PackedWeight)
    assert (weight.shape, weight.size(0), len(weight), weight.ndim, weight.dim()) == ((ROWS, COLS), ROWS, ROWS, 2, 2)
    assert (weight.T.shape, weight.numel(), weight.element_size()) == ((COLS, ROWS), ROWS * COLS, 4)
    assert (weight.dtype, weight.device.type, weight.is_floating_point()) == (torch.float32, "cpu", True)
    assert not weight.requires_grad
    assert not decodings


def test_a_pass_that_needs_gradients_decodes(tree: Packed, decodings: list[Packed]) -> None:
    x, plain = X.clone().requires_grad_(), X.clone().requires_grad_()
    (x @ PackedLinear(tree).weight.T).square().sum().backward()
    (plain @ formats.decode(tree).T).square().sum().backward()
    assert torch.equal(x.grad, plain.grad)
    assert len(decodings) == 1


@pytest.mark.parametrize(
    ("x", "words"),
    [(X[..., 1:], "mat1 and mat2 shapes cannot be multiplied"), (X.double(), "same dtype"), (torch.tensor(1.0), "at least 1D")],
    ids=["width", "type", "number"],
)
def test_inputs_that_do_not_fit_get_the_words_of_torch(tree: Packed, x: Tensor, words: str) -> None:
    for weight in (formats.decode(tree), PackedLinear(tree).weight):
        with pytest.raises(RuntimeError, match=words):
            functional.linear(x, weight)
