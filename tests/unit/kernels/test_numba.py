"""The numba backend against the reference: every form it accepts, every reason it refuses."""

from collections.abc import Callable

import pytest
import torch

from tests.unit.kernels.conftest import Draw
from workbench.errors import KernelError
from workbench.kernels import dispatch, reference
from workbench.kernels.linear import PackedLinear
from workbench.kernels.numba import backend
from workbench.kernels.packed import Packed

ACCEPTED: dict[str, Callable[[Draw], Packed]] = {
    "planes-row-scales": lambda draw: draw.planes(1, 48, extras=False),
    "planes-groups": lambda draw: draw.planes(2, 16, extras=False),
    "planes-columns-and-means": lambda draw: draw.planes(2, 16, extras=True),
    "planes-ragged-last-group": lambda draw: draw.planes(1, 32, extras=True),
    "codebook-8-bit-index": lambda draw: draw.codebook(8, 256, 48, extras=False),
    "codebook-3-bit-index": lambda draw: draw.codebook(4, 6, 16, extras=True),
    "codebook-11-bit-index": lambda draw: draw.codebook(16, 1100, 16, extras=True),
    "codebook-padded": lambda draw: draw.codebook(10, 12, 48, extras=True),
    "codebook-one-entry": lambda draw: draw.codebook(8, 1, 48, extras=False),
    "factors": lambda draw: draw.factors(24, middle=False),
    "factors-middle": lambda draw: draw.factors(8, middle=True),
    "hadamard": lambda draw: draw.hadamard(draw.planes(1, 8, extras=True)),
    "permuted-scaled": lambda draw: draw.permuted(draw.scaled(draw.codebook(4, 16, 48, extras=False))),
    "sum": lambda draw: Packed("sum", draw.rows, draw.cols, children=(draw.planes(1, 48, extras=False), draw.low_rank())),
}


@pytest.fixture(params=list(ACCEPTED), ids=list(ACCEPTED))
def accepted(request: pytest.FixtureRequest) -> Packed:
    """A stored matrix that the backend runs; more rows than any codebook here has entries."""
    return ACCEPTED[request.param](Draw(rows=1200, cols=48))


@pytest.mark.parametrize("batch", [(), (1,), (2, 3)], ids=["vector", "one", "six"])
def test_equals_the_reference(accepted: Packed, batch: tuple[int, ...]) -> None:
    x = torch.randn(*batch, accepted.cols, generator=torch.Generator().manual_seed(3))
    assert backend.refuses(accepted, 6) is None
    torch.testing.assert_close(backend.linear(x, accepted), reference.linear(x, accepted), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=["fp64", "bf16"])
def test_keeps_the_type_of_its_input(accepted: Packed, dtype: torch.dtype) -> None:
    assert backend.linear(torch.ones(2, accepted.cols, dtype=dtype), accepted).dtype == dtype


def test_inputs_need_not_lie_in_one_piece(accepted: Packed) -> None:
    x = torch.randn(accepted.cols, 3).T
    torch.testing.assert_close(backend.linear(x, accepted), reference.linear(x, accepted), rtol=1e-4, atol=1e-4)


def test_is_chosen_and_explained(accepted: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    explanation = dispatch.explain(accepted)
    assert explanation.backend == "numba"
    assert explanation.refused == {"reference": "numba comes first and can run it"}


def test_nothing_is_decoded_where_it_runs(accepted: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    layer = PackedLinear(accepted)
    before = layer.resident_bytes
    layer(torch.ones(1, accepted.cols))
    assert layer.resident_bytes == before


REFUSED: dict[str, tuple[Callable[[Draw], Packed], int, str]] = {
    "batch": (lambda draw: draw.planes(1, 48, extras=False), 9, "for 9 at a time (more than 8) decoding once is faster"),
    "format": (lambda draw: draw.uniform(3, 8, zero=True), 1, "it has no kernel for format 'uniform'"),
    "masked": (lambda draw: draw.hadamard(draw.sum()), 1, "it has no kernel for format 'masked'"),
    "columns": (
        lambda draw: Draw(cols=44).planes(1, 44, extras=False),
        1,
        "rows of 44 columns do not consist of bytes of 8 signs",
    ),
    "rank": (lambda draw: draw.factors(12, middle=False), 1, "a rank of 12 does not consist of bytes of 8 signs"),
    "groups": (lambda draw: draw.planes(1, 12, extras=False), 1, "groups of 12 columns do not consist of bytes of 8 signs"),
    "vectors": (lambda draw: draw.codebook(10, 4, 16, extras=False), 1, "groups of 16 columns do not consist of vectors of 10"),
    "codewords": (lambda draw: draw.codebook(4, 9, 48, extras=False), 1, "a table of 9 codewords takes longer"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_why(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, batch, sentence = REFUSED[case]
    monkeypatch.delenv(dispatch.VARIABLE, raising=False)
    explanation = dispatch.explain(make(Draw(rows=8, cols=48)), batch)
    assert explanation.backend == "reference"
    assert sentence in explanation.refused["numba"]


def test_other_devices_are_refused(draw: Draw) -> None:
    tree = draw.planes(1, 13, extras=False)
    moved = Packed(tree.format, 5, 13, {name: tensor.to("meta") for name, tensor in tree.tensors.items()}, tree.facts)
    assert backend.refuses(moved, 1) == "it runs on the CPU, and the stored tensors are on meta"


def test_a_gradient_is_refused() -> None:
    tree = Draw(cols=48).planes(1, 48, extras=False)
    x = torch.ones(1, 48, requires_grad=True)
    with pytest.raises(KernelError, match="computes no gradients"):
        backend.linear(x, tree)
    with torch.inference_mode():
        assert backend.linear(x, tree).shape == (1, 5)
