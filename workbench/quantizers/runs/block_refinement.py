"""Refinement of blocks in a sequential run: its inputs, and the errors of the layers afterwards."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from workbench.jobs import map_steps
from workbench.quantized import QuantizedLayer
from workbench.quantizers.contract import Snapshot
from workbench.quantizers.distance import compute_output_error, compute_relative_error
from workbench.quantizers.learning.refine import QuantizedBlock
from workbench.quantizers.runs.block_run import BlockRun, Seen
from workbench.recipe import Recipe


@dataclass(frozen=True)
class RefinedBlock:
    """The layers of a block, refined, and those of its vectors that were changed, by their names in the block.

    For the whole model `facts` say what its training took and gained.
    """

    layers: Mapping[str, QuantizedLayer]
    vectors: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)


def refine(block: QuantizedBlock, recipes: Mapping[str, Recipe]) -> Generator[Snapshot, None, QuantizedBlock]:
    """Let each refinement of a block's layers work on its own layers, one after the other."""
    for part in dict.fromkeys(recipe.refinement for recipe in recipes.values()):
        refined = [name for name, recipe in recipes.items() if recipe.refinement == part]
        steps = part.refine(replace(block, trees={name: block.trees[name] for name in refined}), recipes[refined[0]].seed)
        result = yield from map_steps(steps, lambda step: Snapshot("refine", step.step, step.steps, {"step": step}))
        block = replace(result, trees={**block.trees, **result.trees})
    return block


def measure_layers(
    run: BlockRun, layers: Mapping[str, QuantizedLayer], weights: Mapping[str, Tensor]
) -> dict[str, QuantizedLayer]:
    """Refined layers with their errors from the original `weights`, on the inputs that they have now."""
    leaders = {name: group[0] for group in run.inputs() for name in group}
    inputs = run.all_seen({leaders[name] for name in layers})
    return {name: _attach_errors(layer, weights[name], inputs[leaders[name]]) for name, layer in layers.items()}


def _attach_errors(layer: QuantizedLayer, weight: Tensor, inputs: Seen | None) -> QuantizedLayer:
    """The layer with its relative error from `weight`, and its output error from what it aims at on these inputs."""
    decoded = layer.weight()
    output_loss = (
        None if inputs is None else compute_output_error(compute_aim(layer.recipe, weight, inputs), decoded, inputs.moment)
    )
    return replace(layer, relative_error=compute_relative_error(weight, decoded), output_error=output_loss)


def compute_aim(recipe: Recipe, weight: Tensor, inputs: Seen | None) -> Tensor:
    """What a layer is to be: its weight, or where its assignment repairs, what gives its output in the original model."""
    return inputs.aim(weight, recipe.shrinkage) if inputs is not None and recipe.assignment.repairs else weight
