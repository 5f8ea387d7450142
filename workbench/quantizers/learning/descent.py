"""Gradient descent one step at a time: AdamW with cosine decay, the best iterate, early stopping, and a resumable state."""

import copy
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LAST = 1e-3  # share of the rate that is left at the end of the cosine


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: `steps` of AdamW at `rate`, looked at every `check` steps, stopped after `patience` bad looks."""

    steps: int
    rate: float
    check: int = 10
    patience: int = 4

    def rate_at(self, step: int) -> float:
        """The rate of one step, from `rate` down along half a cosine."""
        return self.rate * (LAST + (1 - LAST) * (1 + math.cos(math.pi * step / self.steps)) / 2)


@dataclass(frozen=True)
class Memory:
    """Everything that descent needs to go on after `step` steps, as values."""

    step: int
    values: tuple[Tensor, ...]
    optimizer: dict[str, Any]
    best: tuple[Tensor, ...]
    best_loss: float
    first_loss: float  # before the first step
    bad: int

    def to_tensors(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything as named tensors and JSON facts, to be stored."""
        tensors = {f"values.{i}": value for i, value in enumerate(self.values)}
        tensors |= {f"best.{i}": value for i, value in enumerate(self.best)}
        for i, state in self.optimizer["state"].items():
            tensors |= {f"optimizer.{i}.{name}": torch.as_tensor(value) for name, value in state.items()}
        facts = {
            "step": self.step,
            "best_loss": self.best_loss,
            "first_loss": self.first_loss,
            "bad": self.bad,
            "groups": self.optimizer["param_groups"],
        }
        return tensors, facts

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> "Memory":
        """What `to_tensors` gave."""
        count = sum(name.startswith("values.") for name in tensors)
        values, best = (tuple(tensors[f"{kind}.{i}"] for i in range(count)) for kind in ("values", "best"))
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            kind, index, *name = key.split(".")
            if kind == "optimizer":
                state.setdefault(int(index), {})[name[0]] = tensor
        optimizer = {"state": state, "param_groups": facts["groups"]}
        return cls(facts["step"], values, optimizer, best, facts["best_loss"], facts["first_loss"], facts["bad"])


@dataclass(frozen=True)
class LearningStep:
    """One step of a descent, or step 0 for every draw before it.

    `loss` is the training loss, and at every look `held_out` the loss on held-out data of what would be stored. `memory` is there
    at every look too; `descend(..., start=memory)` goes on from it to the same end.
    """

    step: int
    steps: int
    loss: float
    held_out: float | None = None
    memory: Memory | None = None

    @property
    def fraction(self) -> float:
        """Share of the steps that are done, 0 to 1."""
        return self.step / max(self.steps, 1)


def descend(
    parameters: Sequence[Tensor],
    loss: Callable[[int], Tensor],
    held_out: Callable[[], float],
    schedule: Schedule,
    start: Memory | None = None,
) -> Generator[LearningStep, None, float]:
    """Lower `loss(step)` and leave in `parameters` the values with the smallest `held_out()`; returns that.

    The values at the start count as well, so the result is never worse than no learning. A loss that is not finite ends it.
    """
    optimizer = torch.optim.AdamW(parameters, lr=schedule.rate, weight_decay=0.0)
    if start is None:
        best, best_loss, bad, first = copy_values(parameters), held_out(), 0, 0
        first_loss = best_loss
    else:
        assign_values(parameters, start.values)
        optimizer.load_state_dict(copy.deepcopy(start.optimizer))
        best, best_loss, bad, first = start.best, start.best_loss, start.bad, start.step
        first_loss = start.first_loss
    for step in range(first, schedule.steps):
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate_at(step)
        optimizer.zero_grad()
        value = loss(step)
        if not torch.isfinite(value):
            break
        (value / value.detach().clamp(min=1e-12)).backward()  # the size of a loss must not set the pace
        optimizer.step()
        done = step + 1
        if done % schedule.check and done != schedule.steps:
            yield LearningStep(done, schedule.steps, value.item())
            continue
        now = held_out()
        bad = 0 if now < best_loss else bad + 1
        if now < best_loss:
            best, best_loss = copy_values(parameters), now
        state = copy.deepcopy(optimizer.state_dict())
        memory = Memory(done, copy_values(parameters), state, best, best_loss, first_loss, bad)
        yield LearningStep(done, schedule.steps, value.item(), now, memory)
        if bad >= schedule.patience:
            break
    assign_values(parameters, best)
    return best_loss


def copy_values(parameters: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Values of the parameters now."""
    return tuple(parameter.detach().clone() for parameter in parameters)


def assign_values(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    """Set parameters to values."""
    with torch.no_grad():
        for parameter, value in zip(parameters, values, strict=True):
            parameter.copy_(value)
