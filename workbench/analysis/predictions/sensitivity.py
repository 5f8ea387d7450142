"""Sensitivity of every layer under every recipe: stored bits and KL of each layer alone; the options of an allocation."""

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.analysis.predictions.suffix_replay import Replay
from workbench.calibration import CalibrationStats
from workbench.errors import RecipeError
from workbench.intervals import make_interval_columns
from workbench.jobs import run_steps
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
    on_progress: Callable[[Measured], None] | None = None,
) -> "pd.DataFrame":
    """Measure what each layer costs under each recipe, each layer quantized alone in an otherwise original model.

    Args:
        replay: The original model on a text, a `wb.Replay`.
        recipes: Recipes by the names that the table shall use.
        stats: What `wb.calibrate` gives, for recipes that need it.
        layers: Patterns of layer names, separated by commas.
        store: Where rows are found by content, and new ones are kept.
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
    return run_steps(sensitivity_steps(replay, recipes, stats=stats, layers=layers, store=store), on_progress)


def sensitivity_steps(
    replay: Replay,
    recipes: Mapping[str, Recipe],
    *,
    stats: CalibrationStats | None = None,
    layers: str = "*",
    store: Store | None = None,
) -> Generator[Measured, None, "pd.DataFrame"]:
    """The same as a generator that yields a step for each row and returns the table, for a job that can be stopped."""
    import pandas as pd

    names = replay.model.select(layers)
    if not names or not recipes:
        raise RecipeError(
            f"{len(names)} layers match {layers!r} and {len(recipes)} recipes are given; at least one of each is needed. "
            f"Names look like {replay.model.layer_names[0]!r}, * matches anything."
        )
    floor, rows = replay.noise.kl, list[dict[str, Any]]()
    for name in names:
        for label, recipe in recipes.items():
            effect = measure_layer_effect(replay, name, recipe, stats, store)
            layer = replay.model.layer(name)
            labels = {"name": name, "block": layer.block, "matrix": layer.matrix, "recipe": label}
            rows.append(
                {**labels, **effect, "floor": floor, "significant": is_above_noise(effect["kl"], effect["kl_low"], floor)}
            )
            yield Measured(f"{name}, {label}", len(rows) - 1, len(names) * len(recipes))
    return pd.DataFrame(rows)


def is_above_noise(kl: float, low: float, floor: float) -> bool:
    """Whether an effect is above the noise: the lower end of its interval is, or the effect itself where there is none."""
    return (kl if math.isnan(low) else low) > floor


def measure_layer_effect(
    replay: Replay, layer: str, recipe: Recipe, stats: CalibrationStats | None, store: Store | None
) -> dict[str, float]:
    """Bits and consequences of one layer, from the store where it is there."""
    text = [replay.text.fingerprint, sum(span.stop - span.start for span in replay.spans)]
    facts = stats.facts() if stats is not None else {}
    made_from = compute_key("sensitivity", VERSION, replay.model.fingerprint, layer, recipe.to_dict(), text, facts)
    if store is not None and (entry := store.get(made_from)) is not None:
        return dict(entry.facts)
    result = quantize(replay.model, layer, recipe, stats=stats)
    effect = replay.divergence({layer: result})
    figures = {
        "parameters": result.ledger.weights,
        "bits": result.ledger.total_bits,
        "bits_per_weight": result.bits_per_weight,
        "nominal_bits": result.nominal_bits,
        "kl": effect.kl,
        **make_interval_columns("kl", effect.kl_interval),
        "perplexity": effect.perplexity,
        "top1_changed": effect.top1_changed,
    }
    if store is not None:
        store.put(made_from, {}, figures, kind="sensitivity", what=f"{layer} by {recipe.name}")
    return figures
