"""Nearest codewords: the compiled searches against plain torch and against brute force, ties, and why which one runs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import workbench
from workbench.kernels.search import codeword_search
from workbench.kernels.search.numba import hamming, weighted_hamming

shapes = {
    "seed": st.integers(0, 10_000),
    "length": st.integers(2, 24),
    "count": st.integers(1, 300),
    "entries": st.integers(1, 70),
    "again": st.booleans(),
}


def draw(seed: int, length: int, count: int) -> Tensor:
    return torch.randint(1 << length, (count,), generator=torch.Generator().manual_seed(seed))


def brute(points: Tensor, words: Tensor, length: int) -> Tensor:
    """How many bits differ, bit by bit, `[n, c]`."""
    return sum(((points[:, None] >> j ^ words >> j) & 1 for j in range(length)), torch.zeros(len(points), len(words)).long())


def compiled(search: object, *inputs: Tensor | None) -> tuple[Tensor, Tensor]:
    found = search.find_nearest_codewords(*(None if x is None else x.numpy() for x in inputs))  # type: ignore[attr-defined]
    return torch.from_numpy(found[0]), torch.from_numpy(found[1])


@settings(max_examples=40, deadline=None)
@given(seed=shapes["seed"], length=shapes["length"], count=shapes["count"], entries=shapes["entries"])
def test_a_gpu_counts_what_differs(seed: int, length: int, count: int, entries: int) -> None:
    """The same tensor operations on the CPU."""
    points, words = draw(seed, length, count), draw(seed + 1, length, entries)
    assert torch.equal(codeword_search.find_fewest_flips(points, words), brute(points, words, length).argmin(1))
    assert torch.equal(codeword_search.count_differing_bits(points, words[:1]), brute(points, words[:1], length)[:, 0])


@settings(max_examples=40, deadline=None)
@given(**shapes)
def test_counting_bits_gives_what_multiplying_gives(seed: int, length: int, count: int, entries: int, again: bool) -> None:
    points, words = draw(seed, length, count), draw(seed + 1, length, entries)
    previous = torch.randint(entries, (count,), generator=torch.Generator().manual_seed(seed)) if again else None
    index, distance = codeword_search.find_nearest_by_hamming(points, words, length, previous)
    other, other_distance = compiled(hamming, points, words, previous)
    assert torch.equal(other, index)
    assert torch.equal(other_distance, distance)
    every = brute(points, words, length)
    assert torch.equal(distance, every.amin(1))
    expected = every.argmin(1)
    if previous is not None:
        expected = torch.where(every.gather(1, previous[:, None])[:, 0] == distance, previous, expected)
    assert torch.equal(index, expected)


@settings(max_examples=40, deadline=None)
@given(**shapes, whole=st.booleans())
def test_skipping_codewords_skips_none_that_would_win(
    seed: int, length: int, count: int, entries: int, again: bool, whole: bool
) -> None:
    """With whole numbers sums are exact, and both searches agree to the index; else they agree to rounding."""
    words = draw(seed + 1, length, entries)
    y = torch.randn(count, length, generator=torch.Generator().manual_seed(seed)) * 3
    y = y.round() if whole else y
    previous = torch.randint(entries, (count,), generator=torch.Generator().manual_seed(seed)) if again else None
    index, cost = codeword_search.find_nearest_by_magnitude(y, words, previous)
    other, other_cost = compiled(weighted_hamming, y, words, previous)
    if whole:
        assert torch.equal(other, index)
    torch.testing.assert_close(other_cost, cost)
    torch.testing.assert_close(codeword_search.sum_flipped_weights(y, codeword_search.decode_signs(words, length)[other]), cost)


def test_the_previous_codeword_wins_a_tie_else_the_smallest_number() -> None:
    points, words = torch.tensor([0b0011]), torch.tensor([0b0001, 0b0010, 0b0111])
    for search in (
        lambda p: codeword_search.find_nearest_by_hamming(points, words, 4, p),
        lambda p: compiled(hamming, points, words, p),
    ):
        assert search(None)[0].tolist() == [0]
        assert search(torch.tensor([2]))[0].tolist() == [2]
    y = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    for search in (
        lambda p: codeword_search.find_nearest_by_magnitude(y, words, p),
        lambda p: compiled(weighted_hamming, y, words, p),
    ):
        assert search(None)[0].tolist() == [0]
        assert search(torch.tensor([2]))[0].tolist() == [2]


def test_signs_and_numbers_are_inverse() -> None:
    numbers = torch.arange(1 << 7)
    assert torch.equal(codeword_search.encode_signs(codeword_search.decode_signs(numbers, 7)), numbers)
    assert codeword_search.encode_signs(torch.tensor([[0.0, -1.0, 2.0]])).tolist() == [0b101]


def test_large_searches_are_compiled_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    words = draw(1, 12, 64)
    points = draw(2, 12, codeword_search.MIN_COMPILED_PAIRS // 64)
    assert codeword_search.explain(len(points) * 64)[0] == "numba"
    assert codeword_search.explain(len(points) * 63)[0] == "reference"
    assert "is faster from 4194304 on" in codeword_search.explain(64)[1]
    assert "tensors are on cuda" in codeword_search.explain(1 << 30, "cuda")[1]
    fast = codeword_search.find_nearest_by_hamming(points, words, 12)
    monkeypatch.setenv("WORKBENCH_KERNELS", "reference")
    assert codeword_search.explain(1 << 30) == ("reference", "forced by WORKBENCH_KERNELS")
    monkeypatch.setattr(hamming, "find_nearest_codewords", None)
    plain = codeword_search.find_nearest_by_hamming(points, words, 12)
    assert all(torch.equal(a, b) for a, b in zip(fast, plain, strict=True))


def test_starting_compiled_loops_leaves_torch_its_number_of_threads() -> None:
    """In a process of its own, as numba starts its threads once."""
    code = """
import torch
torch.set_num_threads(1)
from workbench.kernels.search.numba import hamming
points = torch.arange(100).numpy()
hamming.find_nearest_codewords(points, points, None)
assert torch.get_num_threads() == 1, torch.get_num_threads()
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(workbench.__file__).parents[1])
