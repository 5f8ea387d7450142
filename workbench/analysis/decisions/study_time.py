"""How long does a study take on this machine? An estimate before it begins, from the speed of a matrix product."""

import time
from functools import cache

import torch

from workbench.models import ModelHandle

SIZE, ROUNDS = 512, 5  # of the product that is timed
OVERHEAD = 2.0  # a guess: times the multiplications of layers, for everything beside them


@cache
def measure_multiplications() -> float:
    """Multiplications and additions of floats a second, the best of a few products."""
    a = torch.ones(SIZE, SIZE)
    best = float("inf")
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        torch.mm(a, a)
        best = min(best, time.perf_counter() - begin)
    return SIZE**3 / best


def count_weights(model: ModelHandle) -> int:
    """Weights of all layers."""
    return int(model.layers()["parameters"].sum())


def estimate_reading_seconds(weights: int, tokens: float) -> float:
    """Seconds in which a model with so many weights reads so many tokens, roughly."""
    return OVERHEAD * weights * tokens / measure_multiplications()
