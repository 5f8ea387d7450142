"""What recipes ask of whole blocks, or of the whole model: groups of layers, and checks before a run begins."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from workbench.errors import RecipeError
from workbench.quantizers.refinements.model import Model
from workbench.quantizers.transforms.learned import Learned
from workbench.recipe import Recipe


def find_whole_refinement(chosen: Mapping[str, Recipe]) -> Model | None:
    """The refinement of the whole model that recipes ask for; RecipeError where they ask for two."""
    parts = list(dict.fromkeys(recipe.refinement for recipe in chosen.values() if isinstance(recipe.refinement, Model)))
    if len(parts) > 1:
        raise RecipeError(
            f"the plan trains the whole model in {len(parts)} ways, {parts[0].code()} and {parts[1].code()}; give all layers one."
        )
    return parts[0] if parts else None


def check_outside(name: str | None, chosen: Mapping[str, Recipe]) -> None:
    """Raise RecipeError where a layer outside of the blocks has a recipe that learns from the output of a block."""
    recipe = chosen.get(name or "")
    if recipe is None or not (recipe.refines or isinstance(recipe.transform, Learned)):
        return
    part = f"refinement {recipe.refinement.name!r}" if recipe.refines else f"transform {recipe.transform.name!r}"
    raise RecipeError(
        f"{part} works on the output of a block, and {name!r} is in no block; use a plan that gives it a recipe without one."
    )


def group_by_transform(inputs: Iterable[Sequence[str]], chosen: Mapping[str, Recipe]) -> list[list[str]]:
    """The chosen layers by input and transform."""
    groups: dict[tuple[str, Any], list[str]] = {}
    for names in inputs:
        for name in names:
            if name in chosen:
                groups.setdefault((names[0], chosen[name].transform), []).append(name)
    return list(groups.values())
