"""The nearest real-valued codeword: compiled against float64, ties, and vectors that fill no whole block."""

import pytest
import torch

from tests.battery.cases import gaussian
from workbench.kernels.search import vector_search


@pytest.fixture(autouse=True)
def _always_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vector_search, "MIN_COMPILED_COMPARISONS", 0)


@pytest.mark.parametrize(("n", "length", "entries"), [(1, 1, 2), (31, 5, 12), (64, 10, 256), (5000, 16, 300), (2500, 3, 1000)])
def test_compiled_and_plain_search_find_the_same(n: int, length: int, entries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    w, scale, words = gaussian(n, length), gaussian(n, 1, 1), gaussian(entries, length, 2)
    found = vector_search.find_nearest_vectors(w, scale, words)
    monkeypatch.setenv("WORKBENCH_KERNELS", "reference")
    plain = vector_search.find_nearest_vectors(w, scale, words)
    chosen, other = ((w - scale * words[index]).double().square().sum(1) for index in (found, plain))
    torch.testing.assert_close(chosen, other, rtol=1e-5, atol=1e-6)
    assert (found != plain).sum() <= n // 1000  # within rounding of each other


def test_compiled_search_finds_the_least_error() -> None:
    w, scale, words = gaussian(200, 6).double(), gaussian(200, 1, 1).double(), gaussian(50, 6, 2).double()
    least = ((w[:, None] - scale[:, None] * words) ** 2).sum(-1).argmin(1)
    assert torch.equal(vector_search.find_nearest_vectors(w.float(), scale.float(), words.float()), least)


def test_the_first_of_equal_codewords_wins() -> None:
    words = torch.tensor([[0.0, 5.0], [1.0, 1.0], [1.0, 1.0], [0.0, 5.0]])
    found = vector_search.find_nearest_vectors(torch.ones(40, 2), torch.ones(40, 1), words)
    assert found.unique().tolist() == [1]
    assert vector_search.find_nearest_vectors(torch.ones(3, 2), torch.zeros(3, 1), words).tolist() == [0, 0, 0]


def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    w, scale, words = gaussian(5000, 7), gaussian(5000, 1, 1), gaussian(64, 7, 2)
    alone = vector_search.find_nearest_vectors(w, scale, words)
    from workbench.kernels.search.numba import vectors

    monkeypatch.setattr(vectors, "needs_threads", lambda _pairs: True)
    assert torch.equal(vector_search.find_nearest_vectors(w, scale, words), alone)


def test_few_pairs_load_no_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert vector_search.explain(100)[0] == "reference"
    assert vector_search.explain(1 << 20)[0] == "numba"
    assert vector_search.explain(1 << 20, "cuda")[0] == "reference"
