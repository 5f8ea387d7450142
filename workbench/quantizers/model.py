"""Quantize many layers of an open model, one after the other, so that one layer's weights are held at a time."""

import fnmatch
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from torch import Tensor

from workbench.calibration import CalibrationStats
from workbench.errors import RecipeError
from workbench.kernels.packed import ledger
from workbench.quantized import QuantizedLayer, QuantizedModel
from workbench.quantizers.contract import Coder, Params, Snapshot, Transform, finish
from workbench.quantizers.layer import Stats, moment_of
from workbench.quantizers.pipeline import check_inputs, check_recipe, quantize_layer
from workbench.recipe import LayerPlan, Recipe

if TYPE_CHECKING:
    from workbench.models import ModelHandle


@dataclass(frozen=True)
class LayerProgress:
    """Where a run over many layers stands: layer number `index` (from 0) of `count`, and what is happening in it.

    `event` is "share" while what several layers share is prepared, "layer" while a layer runs (`snapshot` says how far) and
    "done" when it is finished (`result`).
    """

    layer: str
    index: int
    count: int
    event: str
    snapshot: Snapshot | None = None
    result: QuantizedLayer | None = None

    @property
    def fraction(self) -> float:
        """Share of the whole run that is done, 0 to 1, every layer counting the same."""
        inside = 1.0 if self.event == "done" else (self.snapshot.done / self.snapshot.total if self.snapshot else 0.0)
        return (self.index + inside) / self.count


def quantize_model(
    model: "ModelHandle",
    recipe: Recipe | LayerPlan,
    stats: Stats | None = None,
    layers: str = "*",
    on_progress: Callable[[LayerProgress], None] | None = None,
) -> QuantizedModel:
    """Quantize every layer whose name matches `layers` and that the plan gives a recipe; the others stay as they are.

    Raises RecipeError when no layer matches or a layer's recipe needs calibration that `stats` does not have.
    """
    return finish(quantize_model_steps(model, recipe, stats, layers), on_progress)


def quantize_model_steps(
    model: "ModelHandle", recipe: Recipe | LayerPlan, stats: Stats | None = None, layers: str = "*"
) -> Generator[LayerProgress, None, QuantizedModel]:
    """The same as a generator that yields LayerProgress and returns the model, for a job that can be stopped."""
    begin = time.perf_counter()
    plan = recipe if isinstance(recipe, LayerPlan) else LayerPlan.uniform(recipe)
    chosen = choose_layers(model, plan, layers, stats)
    scopes = {name: scope_of(plan, name) for name in chosen}
    prepared: dict[str, list[Params]] = {}
    done: dict[str, QuantizedLayer] = {}
    for index, (name, own) in enumerate(chosen.items()):
        moment, scope = moment_of(name, own, stats), scopes[name]
        members = [other for other in chosen if scopes[other] == scope]
        if scope is not None and scope not in prepared:
            yield LayerProgress(name, index, len(chosen), "share")
            weights = TransformedWeights(model, own, members, stats)
            prepared[scope] = [coder.prepare(weights) for coder in cast(tuple[Coder, ...], own.coders)]
        shared = prepared[scope] if scope is not None else None
        steps = quantize_layer(model.weight(name), moment, own, shared, name)
        while True:
            try:
                yield LayerProgress(name, index, len(chosen), "layer", next(steps))
            except StopIteration as stop:
                result: QuantizedLayer = stop.value
                break
        done[name] = share(result, scope, len(members)) if scope is not None else result
        yield LayerProgress(name, index, len(chosen), "done", result=done[name])
    facts = stats.facts() if isinstance(stats, CalibrationStats) else {}
    return QuantizedModel(model.source, done, plan, facts, time.perf_counter() - begin)


def choose_layers(model: "ModelHandle", plan: LayerPlan, pattern: str, stats: Stats | None) -> dict[str, Recipe]:
    """The recipe of every layer to quantize, in the model's order; all are checked before the first one runs."""
    matching = [name for name in model.layer_names if fnmatch.fnmatchcase(name, pattern)]
    pairs = ((name, plan.recipe_for(name)) for name in matching)
    chosen = {name: recipe for name, recipe in pairs if recipe is not None}
    if not chosen:
        rules = ", ".join(repr(rule) for rule, _ in plan.rules)
        raise RecipeError(
            f"layers {pattern!r} with the plan's {rules} match none of {len(model.layer_names)} layers; "
            f"names look like {model.layer_names[0]!r}, * matches anything."
        )
    for name, recipe in chosen.items():
        check_recipe(recipe, moment_of(name, recipe, stats))
    return chosen


def scope_of(plan: LayerPlan, layer: str) -> str | None:
    """A name for the group of layers that share codebooks with this one, None where nothing is shared."""
    rule, recipe = next((i, r) for i, (pattern, r) in enumerate(plan.rules) if fnmatch.fnmatchcase(layer, pattern))
    widest = {coder.sharing for coder in cast(tuple[Coder, ...], recipe.coders)}
    own = {"projection": layer.rsplit(".", 1)[-1], "model": "model"}
    return next((f"{rule}:{own[sharing]}" for sharing in ("model", "projection") if sharing in widest), None)


class TransformedWeights(Sequence[Tensor]):
    """The transformed float32 weights of several layers, each read when it is asked for."""

    def __init__(self, model: "ModelHandle", recipe: Recipe, layers: Sequence[str], stats: Stats | None) -> None:
        self.model, self.recipe, self.layers, self.stats = model, recipe, layers, stats

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, index: int) -> Tensor:  # type: ignore[override]
        name = self.layers[index]
        moment = moment_of(name, self.recipe, self.stats)
        weight = self.model.weight(name)
        check_inputs(weight, moment)
        transform, w = cast(Transform, self.recipe.transform), weight.float()
        return transform.forward(w, transform.fit(w, moment, self.recipe.seed))


def share(layer: QuantizedLayer, scope: str, layers: int) -> QuantizedLayer:
    """The layer with its shared tensors named after their scope and paid for by `layers` layers together."""
    packed = layer.packed.share(scope, layers)
    return replace(layer, packed=packed, ledger=ledger(packed, layer.nominal_bits))
