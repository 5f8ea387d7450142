"""The memory, disk space and time of a long run, estimated from a small part of it before it starts."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
import torch

from workbench import registry
from workbench.guided_moments import count_bytes
from workbench.jobs import run_steps
from workbench.quantizers.pipeline import needs_moment, quantize_layer
from workbench.quantizers.runs.quantize_model import choose_layers
from workbench.recipe import LayerPlan, Recipe

if TYPE_CHECKING:
    from workbench.models import ModelHandle
    from workbench.models.text import Text

TRIED_WEIGHTS = 1 << 18  # that are quantized to see how fast a recipe is
TRIED_WIDTH = 512  # of the matrix product that is timed
# runs of a block in a run in sequence: to find groups, for each of its about four inputs in both models, and to go on
BLOCK_RUNS = 11
BACKWARD_RUNS = 3  # runs of the model that its gradients by outputs are worth
READERS = 3  # layers that read one input, whose guided moments are summed at once: q, k and v
MOMENT_BYTES = 4 + 4 + 8 + 8  # a second moment, its shrunk form, its factor, and what works on these


@dataclass(frozen=True)
class Preflight:
    """What a run takes: bytes of memory at its peak and on disk, and seconds. Learning and refinement come on top of these.

    `work` says what there is to do, such as "1,000 weights to quantize".
    """

    work: str
    memory: int
    disk: int
    seconds: float
    learns: bool = False

    def __str__(self) -> str:
        least = "at least " if self.learns else "about "
        free = psutil.virtual_memory().available
        disk = f", {_spell_bytes(self.disk)} on disk" if self.disk else ""
        memory = f"about {_spell_bytes(self.memory)} of memory ({_spell_bytes(free)} free)"
        return f"{self.work}: {memory}{disk}, {least}{_spell_time(self.seconds)}"


def _spell_bytes(number: float) -> str:
    """A rough size in words."""
    return f"{number / 1e9:.1f} GB" if number >= 1e9 else f"{number / 1e6:.0f} MB"


def _spell_time(seconds: float) -> str:
    """A rough time in words."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def estimate(model: "ModelHandle", recipe: Recipe | LayerPlan, layers: str = "*", *, tokens: int = 0) -> Preflight:
    """Estimate a run of `quantize_model` by quantizing a few rows with the recipe.

    Args:
        model: the opened model; one layer of it is read.
        recipe: the recipe or plan.
        layers: a pattern of layer names.
        tokens: how many tokens the run reads block by block; 0 for a run without text.

    Returns:
        Estimates; the time is within a factor of two or so, and says nothing about learned parts.
    """
    plan = recipe if isinstance(recipe, LayerPlan) else LayerPlan.uniform(recipe)
    chosen = choose_layers(model, plan, layers, None, measured=True)
    sizes = {name: model.layer(name).rows * model.layer(name).cols for name in chosen}
    weights = sum(sizes.values())
    # layers of one recipe share its speed: the first of each is tried
    tried: dict[Recipe, tuple[float, float]] = {}
    for name, layer_recipe in chosen.items():
        if layer_recipe not in tried:
            tried[layer_recipe] = _try_recipe(model, name, layer_recipe)
    coding = sum(sizes[name] * tried[layer_recipe][0] for name, layer_recipe in chosen.items())
    stored = sum(sizes[name] * tried[layer_recipe][1] / 8 for name, layer_recipe in chosen.items())
    block = 4 * _compute_max_sum((model.layer(name).block, sizes[name]) for name in chosen)
    hidden = 2 * 4 * tokens * max(model.layer(name).cols for name in chosen) if tokens else 0
    widest = max((model.layer(name).cols for name, layer_recipe in chosen.items() if needs_moment(layer_recipe)), default=0)
    moments = widest * widest * MOMENT_BYTES if widest else 0
    moments += _count_guided_bytes(model, chosen, tokens)
    memory = psutil.Process().memory_info().rss + block * (2 if tokens else 1) + hidden + moments + stored
    runs = BLOCK_RUNS + (BACKWARD_RUNS if any(layer_recipe.guided for layer_recipe in chosen.values()) else 0)
    reading = 2 * weights * tokens * runs / _measure_multiply_speed() if tokens else 0.0
    rest = model.decoded_bytes - sum(model.count_decoded_bytes(name) for name in sizes)
    disk, learned = int(stored + max(rest, 0)), any(map(_needs_training, chosen.values()))
    return Preflight(f"{weights:,} weights to quantize", int(memory), disk, coding + reading, learned)


def _count_guided_bytes(model: "ModelHandle", chosen: Mapping[str, Recipe], tokens: int) -> int:
    """Bytes of the guided moments of the widest layer that has some and of those beside it, and of all token weights."""
    layers = {name: (model.layer(name), recipe.guided) for name, recipe in chosen.items() if recipe.guided}
    sums = max((count_bytes(layer.rows, layer.cols, groups) for layer, groups in layers.values()), default=0)
    factors = max((min(groups, layer.rows) * layer.cols**2 * MOMENT_BYTES for layer, groups in layers.values()), default=0)
    return READERS * sums + factors + sum(4 * (tokens * groups + layer.rows) for layer, groups in layers.values())


def estimate_reading(model: "ModelHandle", tokens: int, windows: int, times: float = 1.0) -> Preflight:
    """Estimate how long the model takes to read `windows` windows of a text, `tokens` tokens in all, `times` times.

    A model that streams reads its weight files once for each window; one layer is read here to see how fast.
    """
    sizes = {name: model.layer(name).rows * model.layer(name).cols for name in model.layer_names}
    weights, longest = sum(sizes.values()), min(tokens, model.context)
    seconds = 2 * weights * tokens / _measure_multiply_speed()
    beside = sum(math.prod(shape) for shape in model.shapes.values()) - weights
    bytes_held = (
        4 * _compute_max_sum((model.layer(name).block, size) for name, size in sizes.items()) if model.streams else 4 * weights
    )
    if model.streams:
        seconds += windows * weights * _measure_reading_seconds(model, next(iter(sizes)))
    vocabulary = getattr(model.config.get_text_config(), "vocab_size", 0)
    memory = psutil.Process().memory_info().rss + bytes_held + beside * (2 if model.streams else 4) + 2 * 4 * longest * vocabulary
    return Preflight(f"{times * tokens:,.0f} tokens to process", int(memory), 0, times * seconds)


def count_text_tokens(model: "ModelHandle", text: "Text", tokens: int | None) -> tuple[int, int]:
    """How many tokens are read of a text, `tokens` at most, and in how many windows."""
    read = windows = 0
    for document in text.documents:
        length = model.encode(document).shape[1]
        length = length if tokens is None else min(length, tokens - read)
        read, windows = read + length, windows + -(-length // model.context)
        if read == tokens:
            break
    return read, windows


def _measure_reading_seconds(model: "ModelHandle", name: str) -> float:
    """Seconds that one weight takes to be read from its file and made float32."""
    begin = time.perf_counter()
    weight = model.weight(name).float()
    return (time.perf_counter() - begin) / weight.numel()


def combine_preflights(work: str, parts: Sequence[Preflight]) -> Preflight:
    """What several runs take, one after the other."""
    memory, disk = max(part.memory for part in parts), sum(part.disk for part in parts)
    return Preflight(work, memory, disk, sum(part.seconds for part in parts), any(part.learns for part in parts))


def _try_recipe(model: "ModelHandle", name: str, recipe: Recipe) -> tuple[float, float]:
    """Seconds and stored bits per weight of `recipe` on a few rows of a layer."""
    weight = model.weight(name).float()
    part = weight[: max(TRIED_WEIGHTS // weight.shape[1], 8)]
    moment = torch.eye(weight.shape[1]) if needs_moment(recipe) else None
    plain = recipe.replace(transform=registry.make("transform", "identity")) if _needs_training(recipe) else recipe
    steps = quantize_layer(part, moment, plain)
    begin = time.perf_counter()
    result = run_steps(steps)
    return (time.perf_counter() - begin) / part.numel(), result.bits_per_weight


def _needs_training(recipe: Recipe) -> bool:
    """Whether a recipe trains something, whose time is not estimated."""
    return recipe.refines or recipe.transform.learns


def _compute_max_sum(pairs: Iterable[tuple[int | None, int]]) -> int:
    """The largest sum of the numbers of one key."""
    sums: dict[int | None, int] = {}
    for key, number in pairs:
        sums[key] = sums.get(key, 0) + number
    return max(sums.values())


def _measure_multiply_speed() -> float:
    """Floating-point operations a second of a product of matrices here."""
    a = torch.randn(TRIED_WIDTH, TRIED_WIDTH)
    a @ a
    begin = time.perf_counter()
    for _ in range(4):
        a @ a
    return 4 * 2 * TRIED_WIDTH**3 / (time.perf_counter() - begin)
