"""Gradient descent: the best iterate, the early stop, and going on from a remembered step."""

import pytest
import torch

from workbench.jobs import run_steps
from workbench.quantizers.learning.descent import LearningStep, Schedule, descend


def run(
    schedule: Schedule, start: float = 3.0, at: int | None = None, go_on: LearningStep | None = None
) -> tuple[list[LearningStep], float]:
    """Descend on (x − 1)²; `at` stops after so many steps."""
    x = torch.tensor([start], requires_grad=True)
    steps = descend([x], lambda _: (x - 1).square().sum(), lambda: (x - 1).square().item(), schedule, go_on and go_on.memory)
    seen: list[LearningStep] = []
    if at is None:
        run_steps(steps, seen.append)
    else:
        seen = [next(steps) for _ in range(at)]
    return seen, x.item()


def test_it_arrives_and_keeps_the_best() -> None:
    seen, x = run(Schedule(200, 0.1))
    looks = [step.held_out for step in seen if step.held_out is not None]
    assert (x - 1) ** 2 == pytest.approx(min(looks))
    assert abs(x - 1) < 0.1


def test_a_rate_that_only_hurts_leaves_the_start() -> None:
    seen, x = run(Schedule(200, 100.0, patience=2), start=1.001)
    assert x == pytest.approx(1.001)
    assert len(seen) == 20


def test_going_on_from_a_memory_ends_at_the_same_place() -> None:
    schedule = Schedule(60, 0.05)
    whole, x = run(schedule)
    first, _ = run(schedule, at=30)
    rest, again = run(schedule, start=-50.0, go_on=first[-1])
    assert again == x
    assert [step.loss for step in rest] == [step.loss for step in whole[30:]]


def test_a_loss_that_is_not_finite_ends_it() -> None:
    x = torch.ones(1, requires_grad=True)
    run_steps(descend([x], lambda _: (x - 2).log().sum(), lambda: 1.0, Schedule(10, 0.1)))
    assert x.item() == 1


def test_the_rate_falls_along_a_cosine() -> None:
    schedule = Schedule(100, 1.0)
    assert schedule.rate_at(0) == 1
    assert schedule.rate_at(50) == pytest.approx(0.5, abs=0.001)
    assert schedule.rate_at(100) == pytest.approx(0.001)
