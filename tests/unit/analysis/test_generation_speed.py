"""Speed of writing: tokens that were really written over time that really passed, model by model in turns."""

import time

import pytest
import torch

from workbench.analysis.predictions.generation_speed import measure_speeds
from workbench.errors import ModelError


class Writer:
    """Writes so many tokens, each after so many seconds."""

    context, name = 100, "writer"

    def __init__(self, tokens: int, seconds: float, log: list[str], name: str) -> None:
        self.tokens, self.seconds, self.log, self.name = tokens, seconds, log, name

    def encode(self, text: str) -> torch.Tensor:
        return torch.zeros(1, 3, dtype=torch.int64)

    def new_tokens(self, ids: torch.Tensor, tokens: int):
        self.log.append(self.name)
        for _ in range(min(tokens, self.tokens)):
            time.sleep(self.seconds)
            yield 0


def test_models_take_turns_and_the_slower_one_is_slower() -> None:
    log: list[str] = []
    fast, slow = measure_speeds([Writer(9, 0.002, log, "a"), Writer(9, 0.02, log, "b")], "Once", tokens=5, rounds=2)
    assert log == ["a", "b"] * 3
    assert (fast.tokens, slow.tokens) == (5, 5)
    assert slow.low <= slow.tokens_per_second <= slow.high < 50
    assert fast.tokens_per_second > 2 * slow.tokens_per_second


def test_no_more_than_the_context_holds() -> None:
    writer = Writer(500, 0.0, [], "a")
    assert measure_speeds([writer], "Once", tokens=500, rounds=1)[0].tokens == 97


def test_a_model_that_writes_nothing_is_told() -> None:
    with pytest.raises(ModelError, match="'mute' generates nothing after 'Once'"):
        measure_speeds([Writer(0, 0.0, [], "mute")], "Once", rounds=1)
