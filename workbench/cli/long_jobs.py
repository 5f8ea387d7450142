"""The memory, disk space and time that a long command needs, printed to standard error before it starts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workbench.cli.streams import note

if TYPE_CHECKING:
    from workbench.models import ModelHandle
    from workbench.models.text import Text
    from workbench.quantizers.runs.preflight import Preflight
    from workbench.recipe import Recipe

SMALL_BYTES = 1 << 27  # of weight files: jobs on a model this small are short, and estimates take time themselves
LONG_SECONDS = 60


@dataclass(frozen=True)
class Reading:
    """A text that a model reads `times` times, `tokens` tokens of it at most.

    `by_block` says that each block reads all windows before the next one does, so that its weights are needed only once.
    """

    text: "Text"
    tokens: int | None
    times: float = 1.0
    by_block: bool = False


def announce_reading(model: "ModelHandle", *readings: Reading) -> None:
    """Say what it takes to read texts."""
    if is_large(model):
        tell(model, estimate_texts(model, readings))


def announce_allocation(
    model: "ModelHandle", recipes: Sequence["Recipe"], layers: str, calibration: "Text", text: "Text", tokens: int
) -> None:
    """Say what it takes to calibrate, to quantize every layer with every recipe, and to read the text after each of them."""
    if not is_large(model):
        return
    from workbench.calibration import DEFAULT_TOKENS
    from workbench.quantizers.runs.preflight import combine_preflights, estimate

    changes = len(model.select(layers)) * len(recipes)
    quantizing = [replace(estimate(model, recipe, layers), disk=0) for recipe in recipes]
    # what comes before a changed layer is not read again: about half of the model, on average
    read = estimate_texts(model, [Reading(calibration, DEFAULT_TOKENS, by_block=True), Reading(text, tokens, 1 + changes / 2)])
    tell(model, combine_preflights(f"{changes:,} quantized layers to measure", [*quantizing, read]))


def announce_sweep(
    model: "ModelHandle", recipes: Sequence["Recipe"], layers: str, seeds: int, calibration: "Text", tokens: int
) -> None:
    """Say what it takes to calibrate and to quantize every layer with every recipe and seed, on one thread."""
    if not is_large(model):
        return
    from workbench.quantizers.pipeline import can_use_moment
    from workbench.quantizers.runs.preflight import combine_preflights, estimate

    built = [replace(estimate(model, recipe, layers), disk=0) for recipe in recipes] * seeds
    reads = any(map(can_use_moment, recipes))
    read = [estimate_texts(model, [Reading(calibration, tokens, seeds, by_block=True)])] if reads else []
    count = len(model.select(layers)) * len(recipes) * seeds
    tell(model, combine_preflights(f"{count:,} layers to quantize", [*built, *read]))


def announce_stops(model: "ModelHandle", stops: Sequence["Recipe"], calibration_tokens: int, evaluation: "Text") -> None:
    """Say what it takes to quantize the model with each of these recipes, and to read the evaluation text with each."""
    if not stops or not is_large(model):
        return
    from workbench.quantizers.pipeline import needs_text
    from workbench.quantizers.runs.preflight import combine_preflights, estimate

    built = [estimate(model, recipe, tokens=calibration_tokens if needs_text(recipe) else 0) for recipe in stops]
    read = estimate_texts(model, [Reading(evaluation, None, len(stops))])
    tell(model, combine_preflights(f"{len(stops)} models to build", [*built, read]))


def estimate_texts(model: "ModelHandle", readings: Sequence[Reading]) -> "Preflight":
    """What it takes to read these texts."""
    from workbench.quantizers.runs.preflight import combine_preflights, count_text_tokens, estimate_reading

    total, parts = 0.0, []
    for pass_facts in readings:
        tokens, windows = count_text_tokens(model, pass_facts.text, pass_facts.tokens)
        total += tokens * pass_facts.times
        parts.append(estimate_reading(model, tokens, 1 if pass_facts.by_block else windows, pass_facts.times))
    return combine_preflights(f"{total:,.0f} tokens to process", parts)


def is_large(model: "ModelHandle") -> bool:
    """Whether a job on the model may be long."""
    return model.streams or model.stored_bytes > SMALL_BYTES


def tell(model: "ModelHandle", preflight: "Preflight") -> None:
    """Say it where the job is long."""
    if model.streams or preflight.seconds > LONG_SECONDS:
        note(str(preflight))
