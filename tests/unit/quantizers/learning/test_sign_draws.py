"""Drawn signs: the best of all draws is kept, and only where signs matter."""

import pytest
import torch

from workbench.jobs import run_steps
from workbench.quantizers.learning.basis import Basis, Factors
from workbench.quantizers.learning.descent import LearningStep
from workbench.quantizers.learning.inputs import Input
from workbench.quantizers.learning.sign_draws import draw_signs
from workbench.quantizers.transforms.learned import Binarized

SIGNS = Factors(gain=False, signs=True, rotation=False, hadamard=True)


def one(cols: int = 32, factors: Factors = SIGNS, seed: int = 0) -> Input:
    w = torch.randn(16, cols, generator=torch.Generator().manual_seed(seed)) ** 3
    return Input({f"layer {seed}": w}, Basis(cols, factors), {f"layer {seed}": Binarized()}, "codes")


def lost(inputs: list[Input], weights: dict[str, torch.Tensor]) -> float:
    return sum((weights[name] - w).square().sum().item() for group in inputs for name, w in group.weights.items())


def test_the_best_draw_of_each_input_is_kept() -> None:
    inputs = [one(seed=0), one(seed=1)]
    start = lost(inputs, {name: w for group in inputs for name, w in group.refresh().items()})
    seen: list[LearningStep] = []
    run_steps(draw_signs(inputs, lambda weights: lost(inputs, dict(weights)), 6, 10, 0), seen.append)
    assert len(seen) == 2 * 5
    assert {(step.step, step.steps, step.fraction) for step in seen} == {(0, 10, 0.0)}
    now = lost(inputs, {name: w for group in inputs for name, w in group.refresh().items()})
    assert now == min(start, *(step.loss for step in seen)) < start


@pytest.mark.parametrize(
    ("factors", "draws"),
    [
        pytest.param(SIGNS, 1, id="one-draw"),
        pytest.param(Factors(False, True, True), 8, id="no-hadamard"),
        pytest.param(Factors(True, False, True, hadamard=True), 8, id="no-signs"),
    ],
)
def test_nothing_is_drawn_where_nothing_can_be_chosen(factors: Factors, draws: int) -> None:
    group = one(factors=factors)
    before = group.basis.state().tensors()
    assert list(draw_signs([group], lambda _: 1 / 0, draws, 10, 0)) == []
    assert all(torch.equal(before[name], value) for name, value in group.basis.state().tensors().items())
