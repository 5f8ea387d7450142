"""Generation speed in tokens/s: models take turns in each round, so that disturbances affect all of them."""

import statistics
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.jobs import run_steps
from workbench.kernels.matmul.packed_linear import PackedLinear
from workbench.kernels.matmul.packed_matrix import count_resident_bytes
from workbench.kernels.packing.packed import Packed
from workbench.models.language_model import LanguageModel


@dataclass(frozen=True)
class Speed:
    """Tokens a second, the first token and reading the prompt included: the median over rounds, the slowest and the fastest."""

    tokens_per_second: float
    low: float
    high: float
    tokens: int


def measure_layer_seconds(packed: Packed, weight: Tensor, *, calls: int = 30) -> tuple[float, float]:
    """Seconds that a stored layer and torch with its float32 `weight [rows, cols]` take for one input, medians in turns."""
    layer, x, dense = PackedLinear(packed), torch.randn(1, packed.cols), weight.float()
    times: tuple[list[float], list[float]] = ([], [])
    for call in range(calls + 3):
        for durations, product in zip(times, (lambda: layer(x), lambda: nn.functional.linear(x, dense)), strict=True):
            begin = time.perf_counter()
            product()
            if call >= 3:  # the first ones prepare and compile
                durations.append(time.perf_counter() - begin)
    return statistics.median(times[0]), statistics.median(times[1])


@dataclass(frozen=True)
class Running:
    """What a model does while it runs: how fast it writes, and the bytes that its weights take in memory."""

    speed: Speed
    resident_bytes: int


def measure_speeds(models: Sequence[LanguageModel], prompt: str, *, tokens: int = 48, rounds: int = 5) -> list[Speed]:
    """The speed at which each model continues `prompt` greedily, by at most `tokens` tokens; a first round does not count."""
    return run_steps(_measure_speeds_steps(models, prompt, tokens=tokens, rounds=rounds))


def _measure_speeds_steps(
    models: Sequence[LanguageModel], prompt: str, *, tokens: int = 48, rounds: int = 5
) -> Generator[int, None, list[Speed]]:
    """The same as a generator that yields how many turns are over, for a job that can be stopped."""
    speeds: list[list[float]] = [[] for _ in models]
    written = [0] * len(models)
    for turn in range(rounds + 1):
        for number, model in enumerate(models):
            ids = model.encode(prompt)
            begin = time.perf_counter()
            written[number] = sum(1 for _ in model.new_tokens(ids, min(tokens, model.context - ids.shape[1])))
            if turn:
                speeds[number].append(written[number] / (time.perf_counter() - begin))
            yield turn * len(models) + number + 1
    for model, count in zip(models, written, strict=True):
        if count == 0:
            raise ModelError(f"{model.name!r} generates nothing after {prompt!r}; measure its speed with another prompt.")
    return [Speed(statistics.median(f), min(f), max(f), count) for f, count in zip(speeds, written, strict=True)]


def measure_generation(models: Sequence[LanguageModel], prompt: str) -> list[Running]:
    """Measure how fast models write, and the bytes of their weights in memory.

    Each model writes at most 32 tokens greedily, one model after the other in each of three rounds after a first that does not
    count, so that what disturbs one disturbs all.

    Args:
        models: Language models: `wb.open_model(...).language_model()`, or from `wb.load` or `wb.pack_model`.
        prompt: What they continue.

    Returns:
        For each model its speed (tokens a second: median, slowest and fastest round) and `resident_bytes`.

    Raises:
        ModelError: For a model that writes nothing after the prompt.

    Example:
        >>> import workbench as wb
        >>> (running,) = wb.measures.generation_speed([wb.open_model("builtin").language_model()], "Once upon a time")
        >>> running.speed.tokens, running.speed.low <= running.speed.tokens_per_second <= running.speed.high
        (32, True)
    """
    return run_steps(measure_generation_steps(models, prompt))


def measure_generation_steps(models: Sequence[LanguageModel], prompt: str) -> Generator[int, None, list[Running]]:
    """Speed (32 tokens, median of three rounds) and memory of each model; yields after every turn."""
    measured = yield from _measure_speeds_steps(models, prompt, tokens=32, rounds=3)
    return [Running(speed, count_resident_bytes([model.module])) for model, speed in zip(models, measured, strict=True)]
