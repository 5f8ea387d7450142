"""From options and a budget to a plan."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from workbench import registry
from workbench.cell_display import CellSummary, ShownInCell
from workbench.errors import RecipeError
from workbench.quantizers.allocation.options import Allocator, Options
from workbench.recipe import LayerPlan, Recipe

if TYPE_CHECKING:
    import pandas as pd

# a budget that the caller computed as a mean is met in spite of its rounding
ROUNDING = 1 + 1e-9


@dataclass(frozen=True)
class Allocation(ShownInCell):
    """A plan with what it stores and what it should lose if losses add up: `choice` is the recipe's name by layer."""

    plan: LayerPlan
    choice: Mapping[str, str]
    bits_per_weight: float
    loss: float
    budget: float
    table: "pd.DataFrame" = field(repr=False, compare=False)

    def __repr__(self) -> str:
        figures = f"{self.bits_per_weight:.3f} bits per weight, predicted loss {self.loss:.4g}"
        return f"<Allocation of {len(self.choice)} layers: {figures}>"

    def cell_summary(self) -> CellSummary:
        """How many layers got each recipe."""
        counts = Counter(self.choice.values())
        answer = (
            f"{self.bits_per_weight:.3f} stored bits per weight of {self.budget:g} allowed; predicted loss {self.loss:.4g} "
            f"if the losses of single layers add up."
        )
        return CellSummary.of_rows("Which recipe does each layer get?", answer, ("recipe", "layers"), counts.most_common())


def allocate(
    options: "pd.DataFrame",
    recipes: Mapping[str, Recipe],
    bits: float,
    method: str | Allocator = "lagrangian",
    *,
    keep: Mapping[str, str] | None = None,
    scores: "pd.DataFrame | None" = None,
) -> Allocation:
    """Choose a recipe for every layer, at most `bits` stored bits per weight over all of them.

    Args:
        options: What each layer costs under each recipe, the table of `wb.sensitivity`: name, recipe, parameters, bits (stored,
            in all) and kl (nats per token).
        recipes: The recipe that each name in `options` stands for.
        bits: The budget, stored bits per weight over all layers of `options`.
        method: "lagrangian", "milp", "closed-form", "ranked", or such a part with settings (`wb.part("allocation", ...)`).
        keep: Recipes of some layers that are fixed by hand, by layer name.
        scores: The table of `wb.layer_scores`, which "ranked" needs.

    Returns:
        The plan, its stored bits per weight, and the predicted loss in nats per token if the losses of single layers add up. Its
        `table` has one row a layer: name, recipe, parameters, bits, bits_per_weight, kl.

    Raises:
        RecipeError: For a budget below the cheapest choice, and for names that are not in the table.

    Example:
        >>> import pandas as pd
        >>> import workbench as wb
        >>> recipes = {"2 bits": wb.recipe("rtn", bits=2), "4 bits": wb.recipe("rtn", bits=4)}
        >>> columns = ["name", "recipe", "parameters", "bits", "kl"]
        >>> rows = [
        ...     ("first", "2 bits", 100, 200, 0.5), ("first", "4 bits", 100, 400, 0.1),
        ...     ("second", "2 bits", 100, 200, 0.2), ("second", "4 bits", 100, 400, 0.1),
        ... ]
        >>> wb.allocate(pd.DataFrame(rows, columns=columns), recipes, bits=3).choice
        {'first': '4 bits', 'second': '2 bits'}
    """
    choices = Options.from_table(options, scores)
    part = registry.make("allocation", method) if isinstance(method, str) else method
    check(choices, recipes, keep or {})
    fixed = np.array([name in (keep or {}) for name in choices.names])
    chosen = choices.cheapest()
    for index in np.flatnonzero(fixed):
        chosen[index] = choices.recipes.index((keep or {})[choices.names[index]])
    budget = bits * float(choices.weights.sum()) * ROUNDING
    if choices.cost(chosen) > budget:
        least = choices.cost(chosen) / choices.weights.sum()
        raise RecipeError(f"{bits:g} bits per weight are not enough: the cheapest choice stores {least:.3f}; raise the budget.")
    free = ~fixed
    if free.any():
        rest = choices.rows(free)
        chosen[free] = part.choose(rest, budget - choices.cost(chosen) + rest.cost(rest.cheapest()))
    return _build_allocation(choices, recipes, chosen, bits)


def _build_allocation(options: Options, recipes: Mapping[str, Recipe], chosen: np.ndarray, budget: float) -> Allocation:
    """The plan of a choice."""
    import pandas as pd

    at = np.arange(len(chosen)), chosen
    names = [options.recipes[index] for index in chosen]
    table = pd.DataFrame(
        {"name": options.names, "recipe": names, "parameters": options.weights.astype(int), "bits": options.bits[at]}
    )
    table["bits_per_weight"] = table["bits"] / table["parameters"]
    table["kl"] = options.loss[at]
    plan = LayerPlan(tuple((name, recipes[recipe]) for name, recipe in zip(options.names, names, strict=True)))
    stored = options.cost(chosen) / float(options.weights.sum())
    return Allocation(plan, dict(zip(options.names, names, strict=True)), stored, options.added_loss(chosen), budget, table)


def check(options: Options, recipes: Mapping[str, Recipe], keep: Mapping[str, str]) -> None:
    """Raise RecipeError for recipes and layers that the options do not have."""
    if missing := [name for name in options.recipes if name not in recipes]:
        raise RecipeError(f"recipe {missing[0]!r} of the options is not among the given recipes: {', '.join(recipes)}.")
    for layer, recipe in keep.items():
        if layer not in options.names:
            raise RecipeError(registry.describe_unknown("layer", layer, list(options.names)))
        if recipe not in options.recipes:
            raise RecipeError(registry.describe_unknown("recipe", recipe, list(options.recipes)))
