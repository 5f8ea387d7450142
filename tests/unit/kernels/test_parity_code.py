"""Parity checks over signs: what follows from what, and that the search finds the nearest signs that obey them."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from workbench.kernels.forced_backend import VARIABLE
from workbench.kernels.packing.parity_code import MEMORY, ParityCode
from workbench.kernels.search import parity_search

CODES = st.integers(2, 24).flatmap(lambda length: st.builds(ParityCode, st.just(length), st.integers(1, length // 2)))


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def obeys(code: ParityCode, column: list[bool]) -> bool:
    """Every check, written out: the signs that it covers, from where its mask bit is first named to where it closes."""
    closing = [row for row in range(len(column)) if code.closes(row)]
    masks = code.masks(len(column))
    for number, last in enumerate(closing):
        covered = 0
        for row in range(last + 1):
            open_for = number - sum(place < row for place in closing)  # how many checks close before this one does
            covered += column[row] and open_for < MEMORY and bool(masks[row] >> open_for & 1)
        if covered % 2:
            return False
    return True


@given(code=CODES, rows=st.integers(1, 60), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_completed_signs_obey_every_check(code: ParityCode, rows: int, seed: int) -> None:
    stored = gaussian(int(code.stored(rows).sum()), 3, seed=seed) < 0
    for column in code.complete(stored, rows).mT.tolist():
        assert obeys(code, column)


@given(code=CODES, rows=st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_one_sign_a_check_is_not_stored(code: ParityCode, rows: int) -> None:
    assert int((~code.stored(rows)).sum()) == rows * code.checks // code.length


def loss(y: Tensor, negative: Tensor) -> Tensor:
    """Σ|y| of each column where the signs differ."""
    return torch.where((y < 0) == negative, 0.0, y.abs()).sum(0)


@pytest.mark.parametrize("code", [ParityCode(5, 1), ParityCode(10, 3), ParityCode(2, 1)], ids=str)
def test_the_search_finds_the_nearest_signs_of_all(code: ParityCode) -> None:
    rows, y = 13, gaussian(13, 40)
    stored = torch.tensor(list(itertools.product([False, True], repeat=int(code.stored(rows).sum())))).mT
    words = code.complete(stored, rows)
    best = torch.stack([loss(column[:, None], words).min() for column in y.mT])
    found = parity_search.find_nearest_signs(y, code)
    assert torch.equal(found, code.complete(found[code.stored(rows)], rows))
    torch.testing.assert_close(loss(y, found), best)


@given(code=CODES, rows=st.integers(1, 60), cols=st.integers(1, 9), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_signs_completed_by_compiled_code_are_the_plain_ones(code: ParityCode, rows: int, cols: int, seed: int) -> None:
    stored = gaussian(int(code.stored(rows).sum()), cols, seed=seed) < 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity_search, "MIN_COMPILED_STEPS", 0)
        compiled = parity_search.complete(stored, code, rows)
    assert torch.equal(compiled, code.complete(stored, rows))


@pytest.mark.parametrize("code", [ParityCode(5, 1), ParityCode(10, 3), ParityCode(20, 9)], ids=str)
@pytest.mark.parametrize("cols", [9, 1], ids=["columns", "column"])
def test_compiled_search_is_the_plain_one(code: ParityCode, cols: int, monkeypatch: pytest.MonkeyPatch) -> None:
    y = gaussian(150, cols)
    monkeypatch.setattr(parity_search, "MIN_COMPILED_STEPS", 0)
    assert parity_search.explain(y.numel())[0] == "numba"
    compiled = parity_search.find_nearest_signs(y, code)
    monkeypatch.setenv(VARIABLE, "reference")
    assert parity_search.explain(y.numel()) == ("reference", f"forced by {VARIABLE}")
    plain = parity_search.find_nearest_signs(y, code)
    assert torch.equal(compiled, code.complete(compiled[code.stored(150)], 150))
    torch.testing.assert_close(loss(y, compiled), loss(y, plain))


@pytest.mark.parametrize(("steps", "device", "why"), [(1, "cpu", "compiled code is faster"), (1 << 30, "cuda", "on the CPU")])
def test_small_or_foreign_tensors_are_searched_in_torch(steps: int, device: str, why: str) -> None:
    backend, reason = parity_search.explain(steps, device)
    assert backend == "reference"
    assert why in reason
