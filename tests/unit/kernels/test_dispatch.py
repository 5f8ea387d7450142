"""The choice of a backend is explained, can be forced, and never falls back in silence."""

import pytest
import torch

from workbench.errors import KernelError
from workbench.kernels import forced_backend, formats
from workbench.kernels.matmul import dispatch
from workbench.kernels.packing.packed import Packed


def never(packed: Packed, batch: int) -> str:
    return f"it is a test, which refuses {packed.format!r} at batch {batch}"


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table of the reference and, in front of it, a backend that always refuses."""
    table = (dispatch.Backend("picky", "never", never, formats.prepare), dispatch.BACKENDS[-1])
    monkeypatch.setattr(dispatch, "BACKENDS", table)


@pytest.fixture(autouse=True)
def no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(forced_backend.VARIABLE, raising=False)


def test_linear_adds_the_bias(example: Packed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(forced_backend.VARIABLE, "reference")  # float32 sums; those of other backends have tests of their own
    x, bias = torch.randn(2, 4, example.cols), torch.randn(example.rows)
    expected = x @ formats.decode(example).T + bias
    torch.testing.assert_close(dispatch.linear(x, example, bias), expected, rtol=1e-4, atol=1e-4)


def test_a_refusal_is_explained(draw, picky) -> None:
    explanation = dispatch.explain(draw.dense(), batch=3)
    assert explanation.backend == "reference"
    assert explanation.refused == {"picky": "it is a test, which refuses 'dense' at batch 3"}
    assert "not picky: it is a test" in str(explanation)


def test_the_choice_can_be_forced(draw, picky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(forced_backend.VARIABLE, "reference")
    explanation = dispatch.explain(draw.dense())
    assert explanation.backend == "reference"
    assert explanation.reason.startswith("forced by WORKBENCH_KERNELS")
    assert set(explanation.refused) == {"picky"}


def test_a_forced_backend_that_refuses_is_an_error(draw, picky, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(forced_backend.VARIABLE, "picky")
    with pytest.raises(KernelError, match="WORKBENCH_KERNELS=picky cannot run format 'dense': it is a test"):
        dispatch.linear(torch.ones(1, draw.cols), draw.dense())


def test_an_unknown_backend_is_answered_with_the_list(draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(forced_backend.VARIABLE, "referense")
    with pytest.raises(KernelError, match=r"unknown backend 'referense'\. Did you mean 'reference'"):
        dispatch.explain(draw.dense())
