"""Refinement of the whole model as a job of its own: a model that is quantized already is trained further."""

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING

from workbench import registry
from workbench import store as stores
from workbench.artifact.saving import check_belongs
from workbench.calibration import DEFAULT_TOKENS
from workbench.errors import ModelError, RecipeError
from workbench.jobs import run_steps
from workbench.quantized import MODEL_REFINEMENT, QuantizedModel
from workbench.quantizers.refinements.model import Model
from workbench.quantizers.runs.block_sequence import BlockSequence
from workbench.quantizers.runs.model_refinement import refine_whole_model
from workbench.quantizers.runs.progress import LayerProgress, Place
from workbench.quantizers.runs.run_checkpoint import Finished
from workbench.recipe import LayerPlan
from workbench.seeds import check_seed
from workbench.store import Store

if TYPE_CHECKING:
    from workbench.artifact import PackedModel
    from workbench.models import ModelHandle
    from workbench.models.text import Text


def refine_model(
    quantized: "QuantizedModel | PackedModel",
    model: "ModelHandle",
    text: "Text",
    on_progress: Callable[[LayerProgress], None] | None = None,
    *,
    refinement: Model | None = None,
    tokens: int = DEFAULT_TOKENS,
    seed: int = 0,
    store: Store | None = None,
) -> QuantizedModel:
    """Train all blocks of a quantized model together on the divergence from the original's predictions, at the same stored bits.

    This is the last stage of a recipe with `refinement=model`, for a model that was quantized without it.

    Args:
        quantized: From `wb.quantize_model` or `wb.load`; it stays as it is.
        model: The original, from `wb.open_model`.
        text: From `wb.text`: trained on, beside what the original writes itself.
        on_progress: Called with a LayerProgress for every step; its `stage` says in words how far the training is.
        refinement: `wb.part("refinement", "model", ...)` with its `what`, `model_steps` and other settings; its steps for single
            blocks are not taken.
        tokens: At most so many tokens of `text`.
        seed: Draws the order of the text, and what is written.
        store: Where the state of the training is kept, so that the same call goes on after a kill, with the same result.

    Returns:
        The model with trained numbers; its `describe_refinement()` says what that took and gained.

    Raises:
        ModelError: Where `model` is not the original.
        RecipeError: Where the refinement is another one, or the model was fused before it was quantized.

    Example:
        >>> import workbench as wb
        >>> model, text = wb.open_model("builtin"), wb.text("calibration")
        >>> small = wb.quantize_model(model, wb.recipe("rtn", bits=2), layers="*.mlp.*")
        >>> part = wb.part("refinement", "model", what="scales", model_steps=2, written=0)
        >>> refined = wb.refine_model(small, model, text, refinement=part, tokens=600)
        >>> refined.bits_per_weight == small.bits_per_weight, refined.calibration["model_refinement"]["steps"]
        (True, 2)
    """
    steps = refine_model_steps(quantized, model, text, refinement=refinement, tokens=tokens, seed=seed, store=store)
    return run_steps(steps, on_progress)


def refine_model_steps(
    quantized: "QuantizedModel | PackedModel",
    model: "ModelHandle",
    text: "Text",
    *,
    refinement: Model | None = None,
    tokens: int = DEFAULT_TOKENS,
    seed: int = 0,
    store: Store | None = None,
) -> Generator[LayerProgress, None, QuantizedModel]:
    """The same as a generator that yields LayerProgress and returns the model, for a job that can be stopped."""
    check_seed(seed, RecipeError)
    part = registry.make("refinement", "model") if refinement is None else refinement
    if not isinstance(part, Model):
        raise RecipeError(f'{part.code()} does not train the whole model; give wb.part("refinement", "model").')
    fingerprint = getattr(quantized, "fingerprint", model.fingerprint)
    before = quantized if isinstance(quantized, QuantizedModel) else quantized.quantized
    check_belongs(before, model)
    if fingerprint != model.fingerprint:
        raise ModelError(f"the layers were quantized from other weights than those of {model.source!r}; give their original.")
    if before.fused:
        raise RecipeError("the model was fused before it was quantized; quantize it again with refinement=model instead.")
    outside = (model.head_name, model.embedding_name)
    idle = registry.make("refinement", "none")
    chosen = {name: layer.recipe.replace(refinement=idle if name in outside else part) for name, layer in before.layers.items()}
    run = BlockSequence(model, LayerPlan(tuple(chosen.items())), chosen, text, tokens=tokens, seed=seed, store=store)
    run.finished = Finished(store, {**run.finished.made_from, "quantized": _hash_layers(before)})
    run.changed_tensors = dict(before.changed_tensors)
    layers, facts = yield from refine_whole_model(run, before.layers, part, Place(model.source, 0, 1))
    trained_on = {"text": text.name, "fingerprint": text.fingerprint, "seed": seed}
    calibration = {**before.calibration, MODEL_REFINEMENT: {**facts, **trained_on}}
    return replace(before, layers=layers, calibration=calibration, changed_tensors=run.changed_tensors)


def _hash_layers(quantized: QuantizedModel) -> str:
    """A hash of everything that the layers store, and of what was changed beside them."""
    nodes = [(f"{name} {path}", node) for name, layer in quantized.layers.items() for path, node in layer.packed.walk()]
    tensors = {f"{path} {name}": tensor for path, node in nodes for name, tensor in node.tensors.items()}
    tensors |= dict(quantized.changed_tensors)
    shapes = [[path, node.format, node.rows, node.cols, dict(node.facts)] for path, node in nodes]
    return stores.compute_key(shapes, list(tensors), *tensors.values())
