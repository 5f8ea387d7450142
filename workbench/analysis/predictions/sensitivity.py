"""Sensitivity of every layer under every recipe: stored bits and KL of each layer alone; the options of an allocation.

On a cluster each worker keeps the hidden states of the text once, and measures one layer under one recipe after the other.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from workbench.analysis.predictions.suffix_replay import Replay
from workbench.calibration import CalibrationStats
from workbench.cluster.connection import Cluster
from workbench.cluster.task_inputs import (
    describe_model,
    open_described_model,
    read_shared_stats,
    read_shared_text,
    share_stats,
    share_text,
)
from workbench.cluster.task_map import Task, TaskProgress, map_tasks_steps
from workbench.errors import RecipeError
from workbench.input_sums import LayerStats
from workbench.intervals import make_interval_columns
from workbench.jobs import map_steps, run_steps
from workbench.models.handle import ModelHandle
from workbench.models.text import Text
from workbench.quantizers import quantize
from workbench.recipe import Recipe
from workbench.store import Store, compute_key

if TYPE_CHECKING:
    import pandas as pd

VERSION = 2


@dataclass(frozen=True)
class Measured:
    """One figure of `count` is known: `what` it was of."""

    what: str
    index: int
    count: int

    @property
    def fraction(self) -> float:
        """Share of the run that is done."""
        return (self.index + 1) / self.count


def sensitivity(
    replay: Replay,
    recipes: Mapping[str, Recipe],
    *,
    stats: CalibrationStats | None = None,
    layers: str = "*",
    store: Store | None = None,
    cluster: Cluster | None = None,
    on_progress: Callable[[Measured], None] | None = None,
) -> "pd.DataFrame":
    """Measure what each layer costs under each recipe, each layer quantized alone in an otherwise original model.

    Args:
        replay: The original model on a text, a `wb.Replay`.
        recipes: Recipes by the names that the table shall use.
        stats: What `wb.calibrate` gives, for recipes that need it.
        layers: Patterns of layer names, separated by commas.
        store: Where rows are found by content, and new ones are kept.
        cluster: Where to measure, from `workbench.cluster.open_cluster`; here when absent. The same on one thread here.
        on_progress: Called with a `Measured` after every row.

    Returns:
        One row a layer and recipe: name, block, matrix, recipe (its key in `recipes`), parameters, bits (stored, in all),
        bits_per_weight, nominal_bits, kl (nats per token) with kl_low and kl_high (their 95 % interval, NaN where there is none),
        perplexity, top1_changed, floor (what half precision alone does) and significant (kl_low is above it, or kl where there is
        no interval). `wb.allocate` takes it.

    Raises:
        RecipeError: Where nothing matches, or where a recipe needs `stats`.

    Example:
        >>> import workbench as wb
        >>> replay = wb.Replay(wb.open_model("builtin"), wb.text("evaluation"), tokens=128)
        >>> recipes = {"2 bits": wb.recipe("rtn", bits=2), "4 bits": wb.recipe("rtn", bits=4)}
        >>> table = wb.sensitivity(replay, recipes, layers="*.0.mlp.down_proj")
        >>> table["recipe"].tolist(), bool(table["kl"][0] > table["kl"][1])
        (['2 bits', '4 bits'], True)
    """
    return run_steps(sensitivity_steps(replay, recipes, stats=stats, layers=layers, store=store, cluster=cluster), on_progress)


def sensitivity_steps(
    replay: Replay,
    recipes: Mapping[str, Recipe],
    *,
    stats: CalibrationStats | None = None,
    layers: str = "*",
    store: Store | None = None,
    cluster: Cluster | None = None,
) -> Generator[Measured, None, "pd.DataFrame"]:
    """The same as a generator that yields a step for each row and returns the table, for a job that can be stopped."""
    import pandas as pd

    names = replay.model.select(layers)
    if not names or not recipes:
        raise RecipeError(
            f"{len(names)} layers match {layers!r} and {len(recipes)} recipes are given; at least one of each is needed. "
            f"Names look like {replay.model.layer_names[0]!r}, * matches anything."
        )
    pairs = [(name, label) for name in names for label in recipes]
    if cluster is None:
        effects = list[dict[str, float]]()
        for name, label in pairs:
            effects.append(measure_layer_effect(replay, name, recipes[label], stats, store))
            yield Measured(f"{name}, {label}", len(effects) - 1, len(pairs))
    else:
        effects = yield from _measure_there_steps(replay, pairs, recipes, stats, store or Store(), cluster)
    floor, rows = replay.noise.kl, list[dict[str, Any]]()
    for (name, label), effect in zip(pairs, effects, strict=True):
        layer = replay.model.layer(name)
        labels = {"name": name, "block": layer.block, "matrix": layer.matrix, "recipe": label}
        rows.append({**labels, **effect, "floor": floor, "significant": is_above_noise(effect["kl"], effect["kl_low"], floor)})
    return pd.DataFrame(rows)


def _measure_there_steps(
    replay: Replay,
    pairs: Sequence[tuple[str, str]],
    recipes: Mapping[str, Recipe],
    stats: CalibrationStats | None,
    store: Store,
    cluster: Cluster,
) -> Generator[Measured, None, list[dict[str, float]]]:
    """The effects of these layers and recipes, measured by the workers of a cluster."""
    if any(recipe.guided for recipe in recipes.values()):
        raise RecipeError("guided moments are not sent to workers; measure recipes with guided= without workers or a cluster.")
    described, shared = describe_model(replay.model), share_text(replay.text, store)
    keys = {} if stats is None else share_stats(stats, {name for name, _ in pairs}, store)
    tokens = sum(span.stop - span.start - 1 for span in replay.spans)
    tasks = []
    for name, label in pairs:
        arguments = {"model": described, "text": shared, "tokens": tokens, "layer": name}
        arguments |= {"recipe": recipes[label].to_dict(), "stats": keys.get(name)}
        key = _compute_effect_key(replay, name, recipes[label], stats)
        tasks.append(Task(key, arguments, "sensitivity", f"{name} by {recipes[label].name}"))

    def tell(step: TaskProgress) -> Measured:
        return Measured("" if step.newest is None else step.newest.what, step.done - 1, step.total)

    return (yield from map_steps(map_tasks_steps(measure_task_effect, tasks, store, cluster), tell))


def measure_task_effect(arguments: Mapping[str, Any], store: Store) -> dict[str, float]:
    """One layer under one recipe, in any process."""
    model, text = open_described_model(arguments["model"]), read_shared_text(arguments["text"], store)
    stats = read_shared_stats(arguments["layer"], arguments["stats"], store)
    replay = _keep_replay(model, text, arguments["tokens"])
    return _compute_layer_effect(replay, arguments["layer"], Recipe.from_dict(arguments["recipe"]), stats)


@lru_cache(maxsize=1)
def _keep_replay(model: ModelHandle, text: Text, tokens: int) -> Replay:
    return Replay(model, text, tokens=tokens)


def is_above_noise(kl: float, low: float, floor: float) -> bool:
    """Whether an effect is above the noise: the lower end of its interval is, or the effect itself where there is none."""
    return (kl if math.isnan(low) else low) > floor


def measure_layer_effect(
    replay: Replay, layer: str, recipe: Recipe, stats: CalibrationStats | None, store: Store | None
) -> dict[str, float]:
    """Bits and consequences of one layer, from the store where it is there."""
    made_from = _compute_effect_key(replay, layer, recipe, stats)
    if store is not None and (entry := store.get(made_from)) is not None:
        return dict(entry.facts)
    figures = _compute_layer_effect(replay, layer, recipe, stats)
    if store is not None:
        store.put(made_from, {}, figures, kind="sensitivity", what=f"{layer} by {recipe.name}")
    return figures


def _compute_effect_key(replay: Replay, layer: str, recipe: Recipe, stats: CalibrationStats | None) -> str:
    """Where the figures of one layer under one recipe lie."""
    text = [replay.text.fingerprint, sum(span.stop - span.start for span in replay.spans)]
    facts = stats.facts() if stats is not None else {}
    return compute_key("sensitivity", VERSION, replay.model.fingerprint, layer, recipe.to_dict(), text, facts)


def _compute_layer_effect(replay: Replay, layer: str, recipe: Recipe, stats: Mapping[str, LayerStats] | None) -> dict[str, float]:
    """Bits and consequences of one layer."""
    result = quantize(replay.model, layer, recipe, stats=stats)
    effect = replay.divergence({layer: result})
    return {
        "parameters": result.ledger.weights,
        "bits": result.ledger.total_bits,
        "bits_per_weight": result.bits_per_weight,
        "nominal_bits": result.nominal_bits,
        "kl": effect.kl,
        **make_interval_columns("kl", effect.kl_interval),
        "perplexity": effect.perplexity,
        "top1_changed": effect.top1_changed,
    }
