"""The learned transform's numbers and figures: right values, sentences with numbers, a table twin."""

import dataclasses

import numpy as np
import pytest
import torch

from workbench.analysis.method.learned_transform import LearnedTransform, read_learned_transform, tabulate_losses
from workbench.errors import ShapeError
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.quantizers.learning.descent import LearningStep
from workbench.views.method import learned_transform as views
from workbench.views.theme import DARK


@pytest.fixture
def learned() -> LearnedTransform:
    draw = torch.Generator().manual_seed(0)
    tensors = {
        "gain": torch.linspace(0.5, 2, 12).half(),
        "signs": bitpack.pack(torch.tensor([0, 0, 0, *[1] * 9]), 1),
        "left": torch.randn(3, generator=draw).half(),
        "right": torch.randn(6, generator=draw).half(),
    }
    return read_learned_transform(Packed("rotated", 5, 12, tensors, {"factors": [3, 4]}))


def test_numbers_of_a_packed_transform(learned: LearnedTransform) -> None:
    assert learned.flipped == 3
    np.testing.assert_allclose(np.abs(learned.diagonal), np.linspace(0.5, 2, 12), rtol=1e-3)
    for matrix in learned.rotations:
        np.testing.assert_allclose(matrix @ matrix.T, np.eye(len(matrix)), atol=1e-12)
    assert learned.bits == 16 * (12 + 3 + 6) + 8 * 2
    assert learned.multiply_adds == 12 * (1 + 3 + 4)


def test_a_layer_without_one_says_so() -> None:
    with pytest.raises(ShapeError, match="this layer has no learned transform .*'dense'.*; use btc with transform='both'"):
        read_learned_transform(Packed("dense", 1, 1, {"weight": torch.zeros(1, 1)}))


def test_loss_curve_tells_the_best_look() -> None:
    steps = [LearningStep(n, 30, 1 / n, held_out=[0.5, 0.3, 0.4][n // 10 - 1] if n % 10 == 0 else None) for n in range(1, 31)]
    figure = views.draw_loss_curve(tabulate_losses(steps), theme=DARK)
    assert figure.answer.endswith("was 0.5 after 10 steps; the best one is stored: 0.3 after 20.")
    assert figure.plot["data"][1]["y"] == [0.5, 0.3, 0.4]
    assert len(figure.table) == 30


def test_loss_curve_before_the_first_look() -> None:
    figure = views.draw_loss_curve(tabulate_losses([LearningStep(1, 30, 1.0)]))
    assert figure.answer == "Nothing has been measured on held-out text yet."


def test_diagonal_shows_flips_below_zero(learned: LearnedTransform) -> None:
    figure = views.draw_diagonal(learned)
    assert figure.answer == "3 of 12 inputs change sign; factors run from 0.5 to 2."
    assert [value < 0 for value in figure.plot["data"][0]["y"]] == [True] * 3 + [False] * 9
    assert abs(figure.table["factor"][0]) in (pytest.approx(0.5), pytest.approx(2))


def test_rotation_shows_both_factors_and_the_cost(learned: LearnedTransform) -> None:
    figure = views.draw_rotation(learned)
    assert [trace["z"].shape for trace in figure.plot["data"]] == [(3, 3), (4, 4)]
    assert "12 inputs as 3 × 3 ⊗ 4 × 4: 96 multiply-adds per token" in figure.answer
    none = LearnedTransform(np.ones(4), (), 0, 0)
    assert views.draw_rotation(none).answer == "This transform does not rotate."
    fixed = dataclasses.replace(none, hadamard=True)
    assert views.draw_rotation(fixed).answer == "No rotation is stored: only the fixed Hadamard transform rotates."
    both = dataclasses.replace(learned, hadamard=True)
    assert views.draw_rotation(both).answer.endswith("; the fixed Hadamard transform after it stores nothing.")
