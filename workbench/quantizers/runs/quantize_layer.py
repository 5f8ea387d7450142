"""Quantize one layer of an open model."""

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.errors import RecipeError
from workbench.guided_moments import GuidedMoments
from workbench.jobs import run_steps
from workbench.models.layers import Layer
from workbench.quantized import QuantizedLayer
from workbench.quantizers.contract import Snapshot
from workbench.quantizers.pipeline import can_use_moment, needs_moment, quantize_layer
from workbench.quantizers.shrinkage import make_zero_moment, warn_of_few
from workbench.recipe import Part, Recipe

if TYPE_CHECKING:
    from workbench.input_sums import LayerStats
    from workbench.models import ModelHandle

Stats = Mapping[str, "LayerStats"]


def quantize(
    model: "ModelHandle",
    layer: str,
    recipe: Recipe,
    stats: Stats | None = None,
    on_progress: Callable[[Snapshot], None] | None = None,
) -> QuantizedLayer:
    """Quantize one layer of a model; the model stays as it is.

    Args:
        model: A model from `wb.open_model`.
        layer: The layer's name, one of `model.layer_names`.
        recipe: What to do, from `wb.recipe`.
        stats: What `wb.calibrate` gives, for recipes that need it.
        on_progress: Called with every Snapshot of the work.

    Returns:
        The stored matrix `[rows, cols]` with its ledger and errors.

    Raises:
        ModelError: For a layer that does not exist.
        RecipeError: When the recipe needs `stats`.

    Example:
        >>> import workbench as wb
        >>> result = wb.quantize(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", wb.recipe("rtn", bits=2))
        >>> round(result.bits_per_weight, 2), result.nominal_bits
        (2.14, 2.0)
    """
    return run_steps(quantize_steps(model, layer, recipe, stats), on_progress)


def quantize_steps(
    model: "ModelHandle", layer: str, recipe: Recipe, stats: Stats | None = None
) -> Generator[Snapshot, None, QuantizedLayer]:
    """The same as a generator that yields Snapshots and returns the layer, for a job that can be stopped."""
    result = yield from quantize_weight_steps(model.weight(layer), model.layer(layer), recipe, stats)
    return replace(result, source="" if model.is_rewritten else model.source)


def quantize_weight_steps(
    weight: Tensor, layer: Layer, recipe: Recipe, stats: Stats | None, *, measured: bool = True
) -> Generator[Snapshot, None, QuantizedLayer]:
    """The same for the layer's `weight`, all of it or some of its rows; `measured` as in `quantize_layer`."""
    moment, tokens, measured = (
        find_moment(layer, recipe, stats),
        find_token_count(layer.name, stats),
        measured and is_measured(layer, stats),
    )
    result = yield from quantize_layer(
        weight, moment, recipe, name=layer.name, tokens=tokens, measured=measured, guided=find_guided(layer, recipe, stats)
    )
    warn_of_few({layer.name: result})
    return result


def is_measured(layer: Layer, stats: Stats | None = None) -> bool:
    """Whether the second moment that a layer is quantized under says what its output loses: an embedding has none of its own, and
    one without correlations does not say it."""
    return layer.role != "embedding" and not getattr(stats, "diagonal", False)


def _check_diagonal(layer: str, recipe: Recipe) -> None:
    """RecipeError where a recipe needs correlations between inputs, of which only mean squares are known."""
    parts: list[Part] = [part for part in (recipe.split, recipe.assignment, recipe.correction) if part.needs_moment]
    parts += [recipe.transform] if recipe.transform.learns else []
    parts += [recipe.refinement] if recipe.refines else []
    if parts:
        raise RecipeError(
            f"{parts[0].kind} {parts[0].name!r} of layer {layer!r} needs correlations between inputs, and an importance matrix "
            f"holds only their mean squares; calibrate on text, or use a recipe without it."
        )


def find_moment(layer: Layer, recipe: Recipe, stats: Stats | None) -> Tensor | None:
    """The layer's second moment `[cols, cols]`, or None where it was not calibrated and the recipe can do without.

    That of a layer that the text did not reach (an expert that was never chosen) is zero: all its errors count alike; so they do
    in an embedding, whose output is a row of it.
    """
    if isinstance(recipe, str):
        raise RecipeError(f"the text {recipe!r} is not a recipe; write wb.recipe({recipe!r}).")
    needs = needs_moment(recipe)
    if layer.role == "embedding":
        return torch.eye(layer.cols) if needs else None
    if stats is None:
        return None
    if getattr(stats, "diagonal", False):
        _check_diagonal(layer.name, recipe)
    if layer.name in stats:
        return stats[layer.name].moment
    if needs and layer.name in getattr(stats, "unreached", {}):
        return make_zero_moment(layer.cols)
    if needs:
        raise RecipeError(
            f"layer {layer.name!r} was not calibrated, but {needs[0].kind} {needs[0].name!r} needs it; "
            f"calibrate it too with layers=[..., {layer.name!r}], or omit layers= for all layers in the blocks."
        )
    return None


def find_guided(layer: Layer, recipe: Recipe, stats: Stats | None) -> GuidedMoments | None:
    """The layer's moments weighted by the loss, or None where the recipe wants none, or no token reached the layer.

    RecipeError where it wants some and `stats` hold none, or for another number of groups.
    """
    check_guided(recipe)
    if not recipe.guided or layer.role == "embedding" or layer.name in getattr(stats, "unreached", {}):
        return None
    moments: GuidedMoments | None = getattr(stats, "guided", {}).get(layer.name)
    if moments is None:
        raise RecipeError(
            f"the recipe of layer {layer.name!r} has guided={recipe.guided}, but the statistics hold no guided moments of it; "
            f"use stats=wb.calibrate(model, text, guided={recipe.guided}), or give text= for a run in sequence."
        )
    if len(moments.weight) != min(recipe.guided, layer.rows):
        raise RecipeError(
            f"the recipe of layer {layer.name!r} has guided={recipe.guided}, but its guided moments are of "
            f"{len(moments.weight)} groups of rows; calibrate with guided={recipe.guided}."
        )
    return moments


def check_guided(recipe: Recipe) -> None:
    """RecipeError where a recipe wants guided moments and uses none."""
    if recipe.guided and not can_use_moment(recipe):
        raise RecipeError(f"guided={recipe.guided} changes nothing in {recipe.code()}, which uses no second moment; omit it.")


def count_groups(recipes: Iterable[Recipe]) -> int:
    """How many groups of rows recipes want guided moments for, 0 for none: what `calibrate` is to be asked for.

    RecipeError where they want different numbers.
    """
    counts = sorted({recipe.guided for recipe in recipes if recipe.guided})
    if len(counts) > 1:
        raise RecipeError(f"recipes with guided={counts[0]} and guided={counts[1]} need two calibrations; give all the same.")
    return counts[0] if counts else 0


def find_token_count(layer: str, stats: Stats | None) -> int | None:
    """How many tokens the layer's second moment is of; None where it was not calibrated."""
    return None if stats is None or layer not in stats else stats[layer].tokens
