"""The error budget of a quantized model: the error of every layer, their sum, and pairs that amplify each other's error."""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from workbench.analysis.predictions.divergence import Divergence, sum_tokens_by_unit
from workbench.analysis.predictions.isolated_effects import Change, Quantized, build_replacements, get_layers
from workbench.analysis.predictions.sensitivity import Measured, is_above_noise
from workbench.analysis.predictions.suffix_replay import Replay
from workbench.errors import RecipeError
from workbench.intervals import Interval, estimate_mean_interval, estimate_positive_interval, split_interval
from workbench.jobs import run_steps
from workbench.quantized import QuantizedLayer

if TYPE_CHECKING:
    import pandas as pd

TOP = 5


@dataclass(frozen=True)
class ErrorBudget:
    """`layers` and `pairs` as tables, the damage of all layers together, and how it compares with the sum of their damages.

    `layers`: name, block, matrix, recipe, bits_per_weight, kl (this layer alone; kl_low, kl_high), accumulated (this and all
    layers before it), floor, significant. A parameter beside the layers that changed and counts to none of them (see
    `analysis.applied`) is a row too, without recipe and bits. `pairs`, of the layers with the largest kl: earlier, later,
    together, apart (the sum of both alone), interaction (the difference; interaction_low, interaction_high). `ratio` is joint
    KL over the sum of single ones: 1 where damages add up. All KL in nats per token with 95 % intervals over documents (NaN or
    None where there is none), paired where figures are compared.
    """

    layers: "pd.DataFrame"
    pairs: "pd.DataFrame"
    joint: Divergence
    total: float
    total_interval: Interval | None
    ratio: float
    ratio_interval: Interval | None
    floor: float


def error_budget(
    replay: Replay,
    layers: Quantized,
    *,
    top: int = TOP,
    on_progress: Callable[[Measured], None] | None = None,
) -> ErrorBudget:
    """Measure what each quantized layer adds to the loss: alone, accumulated from the first on, together, and in pairs.

    Args:
        replay: The original model on a text, a `wb.Replay`.
        layers: What `wb.quantize_model` made, or quantized layers by name. What a `QuantizedModel` changed beside its layers
            takes part.
        top: How many of the most harmful layers are also measured in pairs.
        on_progress: Called with a `Measured` after every measurement.

    Returns:
        Tables of layers and pairs, and the joint damage over the sum of single ones (1 where damages add up); all KL in nats per
        token.

    Raises:
        RecipeError: Where there are no layers.
        ModelError: Where they were quantized in a fused model and the replay is of another.

    Example:
        >>> import workbench as wb
        >>> model = wb.open_model("builtin")
        >>> small = wb.quantize_model(model, wb.recipe("rtn", bits=2), layers="*.[01].mlp.down_proj")
        >>> budget = wb.error_budget(wb.Replay(model, wb.text("evaluation"), tokens=128), small)
        >>> budget.layers["name"].tolist()
        ['model.layers.0.mlp.down_proj', 'model.layers.1.mlp.down_proj']
        >>> len(budget.pairs)
        1
    """
    return run_steps(error_budget_steps(replay, layers, top=top), on_progress)


def error_budget_steps(replay: Replay, layers: Quantized, *, top: int = TOP) -> Generator[Measured, None, ErrorBudget]:
    """The same as a generator that yields a step for each replay and returns the budget, for a job that can be stopped."""
    import pandas as pd

    if not get_layers(layers):
        raise RecipeError("no layer is quantized, so there is no error to measure; quantize the model first.")
    changes = build_replacements(replay.model, layers)
    ordered = {name: changes[name] for name in dict.fromkeys([*replay.model.layer_names, *changes]) if name in changes}
    top = min(top, len(ordered))
    count, done = 2 * len(ordered) + top * (top - 1) // 2, 0
    alone: dict[str, Divergence] = {}
    accumulated: dict[str, Divergence] = {}
    for divergences, all_before in ((alone, False), (accumulated, True)):
        so_far: dict[str, Change] = {}
        for name, change in ordered.items():
            so_far = {**so_far, name: change} if all_before else {name: change}
            divergences[name] = replay.divergence(so_far)
            yield Measured(name, done, count)
            done += 1
    worst = sorted(sorted(alone, key=lambda name: -alone[name].kl)[:top], key=list(ordered).index)
    pairs = []
    for first, second in combinations(worst, 2):
        both = replay.divergence({first: ordered[first], second: ordered[second]})
        pairs.append({"earlier": first, "later": second, **_compute_interaction(both, alone[first], alone[second])})
        yield Measured(f"{first} and {second}", done, count)
        done += 1
    floor = replay.noise.kl
    quantized_layers = get_layers(layers)
    rows = [_make_layer_row(replay, name, quantized_layers.get(name), alone[name], accumulated[name], floor) for name in ordered]
    columns = ["earlier", "later", "together", "apart", "interaction", "interaction_low", "interaction_high"]
    return _build_error_budget(
        pd.DataFrame(rows), pd.DataFrame(pairs, columns=columns), accumulated[list(ordered)[-1]], alone, floor
    )


def _make_layer_row(
    replay: Replay, name: str, layer: QuantizedLayer | None, alone: Divergence, accumulated: Divergence, floor: float
) -> dict[str, object]:
    """One layer of the budget, or a parameter beside the layers."""
    low, high = split_interval(alone.kl_interval)
    block, matrix = replay.boundaries.locate(name)
    return {
        "name": name,
        "block": block,
        "matrix": matrix,
        "recipe": "" if layer is None else layer.recipe.name,
        "bits_per_weight": float("nan") if layer is None else layer.bits_per_weight,
        "kl": alone.kl,
        "kl_low": low,
        "kl_high": high,
        "accumulated": accumulated.kl,
        "floor": floor,
        "significant": is_above_noise(alone.kl, low, floor),
    }


def _compute_interaction(both: Divergence, first: Divergence, second: Divergence) -> dict[str, float]:
    """What two layers do together beyond the sum of what each does."""
    apart = first.per_token.kl + second.per_token.kl
    low, high = split_interval(estimate_mean_interval(sum_tokens_by_unit(both.per_token, (both.per_token.kl - apart)[:, None])))
    divergences = {"together": both.kl, "apart": first.kl + second.kl, "interaction": both.kl - first.kl - second.kl}
    return {**divergences, "interaction_low": low, "interaction_high": high}


def _build_error_budget(
    layers: "pd.DataFrame", pairs: "pd.DataFrame", joint: Divergence, alone: Mapping[str, Divergence], floor: float
) -> ErrorBudget:
    """Sum and ratio, document by document."""
    apart = np.sum([effect.per_token.kl for effect in alone.values()], 0)
    sums = sum_tokens_by_unit(joint.per_token, np.stack([joint.per_token.kl, apart], 1))
    total = float(apart.mean())
    # layers that change nothing at all add up to nothing
    ratio = joint.kl / total if total else 1.0
    spread = estimate_positive_interval(sums, 0, over=1) if total else (ratio, ratio)
    return ErrorBudget(layers, pairs, joint, total, estimate_positive_interval(sums, 1), ratio, spread, floor)
