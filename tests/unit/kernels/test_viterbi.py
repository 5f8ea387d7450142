"""Paths through the trellis: against all rings there are, compiled against plain torch, and states against their definition."""

import itertools

import pytest
import torch
from torch import Tensor

from tests.battery.cases import gaussian
from workbench.kernels.packing import trellis_code
from workbench.kernels.search import viterbi


def cost(y: Tensor, scale: Tensor, words: Tensor, codes: Tensor, bits: int) -> Tensor:
    """Σ ‖y − scale · words[state]‖² of each of n rings: `y [steps, length]`, `codes [steps, n]`."""
    states = trellis_code.compute_states(codes, bits, (len(words) - 1).bit_length())
    return (y[:, None] - scale[:, None, None] * words[states]).square().sum((0, 2))


def test_a_state_is_the_last_bits_of_the_ring() -> None:
    codes = torch.tensor([[0b10], [0b01], [0b11], [0b00], [0b10]])
    found = trellis_code.compute_states(codes, 2, 5)[:, 0].tolist()
    assert found == [0b01010, 0b01001, 0b00111, 0b11100, 0b10010]  # before the first: one bit of 00, then 10


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("bits", "state", "steps"), [(1, 4, 9), (2, 6, 6), (3, 4, 4), (2, 4, 5)])
def test_the_path_is_among_the_best_of_all_rings(bits: int, state: int, steps: int, seed: int) -> None:
    """Exactly the best of those that share its seam, and near the best of all."""
    y, scale, words = (
        gaussian(steps, 2, seed),
        gaussian(steps, 1, seed + 1)[:, 0].abs() + 0.3,
        trellis_code.compute_state_values(state, 2),
    )
    every = torch.tensor(list(itertools.product(range(1 << bits), repeat=steps))).T
    costs = cost(y, scale, words, every, bits)
    found = viterbi.search(y[:, None], scale, words, bits)
    own = cost(y, scale, words, found, bits)
    seam = (trellis_code.compute_states(found, bits, state)[-1] & (1 << state - bits) - 1).item()
    same = (trellis_code.compute_states(every, bits, state)[-1] & (1 << state - bits) - 1) == seam
    torch.testing.assert_close(own[0], costs[same].min())
    assert (costs < own * (1 - 1e-6)).float().mean() < 0.02


@pytest.mark.parametrize(
    ("bits", "length", "state", "steps"),
    [(2, 1, 8, 40), (4, 5, 10, 33), (6, 2, 11, 9), (3, 2, 6, 2), (5, 1, 5, 7)],
)
def test_compiled_and_plain_search_find_the_same(
    bits: int, length: int, state: int, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    y, scale = gaussian(steps * 3, length).view(steps, 3, length), gaussian(steps, 1, 1)[:, 0]
    words = trellis_code.compute_state_values(state, length)
    compiled = viterbi.search(y, scale, words, bits)
    monkeypatch.setenv("WORKBENCH_KERNELS", "reference")
    assert torch.equal(viterbi.search(y, scale, words, bits), compiled)


@pytest.mark.parametrize("length", [1, 5])
def test_values_are_close_to_normal(length: int) -> None:
    words = trellis_code.compute_state_values(12, length).double()
    assert words.mean().abs() < 0.03
    assert words.std().item() == pytest.approx(1, abs=0.02)
    neighbours = torch.corrcoef(torch.stack([words[:-1].flatten(), words[1:].flatten()]))[0, 1]
    assert neighbours.abs() < 0.05
