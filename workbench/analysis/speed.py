"""How fast models write: tokens a second, one model after the other in each round, so that what disturbs one disturbs all."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from workbench.errors import ModelError
from workbench.models.language_model import LanguageModel


@dataclass(frozen=True)
class Speed:
    """Tokens a second, the first token and reading the prompt included: the median over rounds, the slowest and the fastest."""

    tokens_per_second: float
    low: float
    high: float
    tokens: int


def speeds(models: Sequence[LanguageModel], prompt: str, *, tokens: int = 48, rounds: int = 5) -> list[Speed]:
    """The speed at which each model continues `prompt` greedily, by at most `tokens` tokens; a first round does not count."""
    found: list[list[float]] = [[] for _ in models]
    written = [0] * len(models)
    for turn in range(rounds + 1):
        for number, model in enumerate(models):
            ids = model.encode(prompt)
            begin = time.perf_counter()
            written[number] = sum(1 for _ in model.new_tokens(ids, min(tokens, model.context - ids.shape[1])))
            if turn:
                found[number].append(written[number] / (time.perf_counter() - begin))
    for model, count in zip(models, written, strict=True):
        if count == 0:
            raise ModelError(f"{model.name!r} writes nothing after {prompt!r}; measure its speed with another prompt.")
    return [Speed(statistics.median(f), min(f), max(f), count) for f, count in zip(found, written, strict=True)]
