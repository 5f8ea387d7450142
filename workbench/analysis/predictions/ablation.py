"""Ablations: recipes on one model and one text, each compared with the first."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

import torch

from workbench.artifact.quantized_copy import build_packed_copy
from workbench.calibration import DEFAULT_TOKENS, iterate_windows
from workbench.cluster.connection import Cluster
from workbench.cluster.task_inputs import describe_model, open_described_model, read_shared_text, share_text
from workbench.cluster.task_map import Task, TaskProgress, map_tasks_steps
from workbench.errors import ModelError, RecipeError
from workbench.intervals import make_interval_columns, split_interval
from workbench.jobs import run_steps
from workbench.models.block_pass import extract_hidden_states
from workbench.models.blocks import BlockRow
from workbench.models.handle import ModelHandle
from workbench.models.perplexity import PerplexityResult, Window, compute_perplexity_ratio, perplexity, summarise
from workbench.models.text import Text
from workbench.quantized import QuantizedModel
from workbench.quantizers import quantize_model
from workbench.quantizers.learning.block import BlockLoss
from workbench.recipe import LayerPlan, Recipe
from workbench.seeds import check_seed
from workbench.store import Store, compute_key

if TYPE_CHECKING:
    import pandas as pd

VERSION = 1
BLOCK_TOKENS = 4096


def run_ablation(
    model: ModelHandle,
    recipes: Mapping[str, Recipe | LayerPlan],
    evaluation: Text,
    *,
    calibration: Text,
    tokens: int = DEFAULT_TOKENS,
    evaluation_tokens: int | None = None,
    seed: int = 0,
    store: Store | None = None,
    cluster: Cluster | None = None,
    on_progress: Callable[[str, float], None] | None = None,
) -> "pd.DataFrame":
    """Compare recipes side by side on one model and one text: what does a part of a method bring over the first recipe?

    Every recipe quantizes the blocks in sequence.

    Args:
        model: A model from `wb.open_model`.
        recipes: Recipes or plans by name; the first is what the others are compared with.
        evaluation: The text to measure with.
        calibration: The text to calibrate on.
        tokens: At most so many tokens of `calibration`.
        evaluation_tokens: At most so many tokens of `evaluation`, all when absent.
        seed: Draws the order of the calibration text's documents.
        store: Where finished layers are kept, as in `wb.quantize_model`.
        cluster: Where to work, one recipe a task, from `workbench.cluster.open_cluster`; here when absent.
        on_progress: Called with each recipe's name and how far it is, 0 to 1.

    Returns:
        One row a recipe, in their order: recipe, bits_per_weight, nominal_bits, perplexity, perplexity_low, perplexity_high,
        ratio, ratio_low, ratio_high (paired with the first recipe, document by document, see `compute_perplexity_ratio`; NaN for
        the first recipe), block_error (the mean of `measure_block_errors`), seconds.

    Raises:
        RecipeError: Where there is no recipe.

    Example:
        >>> import workbench as wb
        >>> plans = {
        ...     f"{bits} bits": wb.LayerPlan.uniform(wb.recipe("rtn", bits=bits), "*.5.mlp.down_proj") for bits in (4, 2)
        ... }
        >>> texts = {"evaluation": wb.text("evaluation"), "calibration": wb.text("calibration")}
        >>> table = wb.measures.ablation(wb.open_model("builtin"), plans, **texts, tokens=64, evaluation_tokens=64)
        >>> table["recipe"].tolist(), table["nominal_bits"].tolist()
        (['4 bits', '2 bits'], [4.0, 2.0])
    """
    import pandas as pd

    if not recipes:
        raise RecipeError("no recipes to compare; give at least one, such as {'none': wb.recipe('btc', transform='none')}.")
    options: dict[str, Any] = {"tokens": tokens, "evaluation_tokens": evaluation_tokens, "seed": seed}
    if cluster is not None:
        figures = _measure_there(model, recipes, evaluation, calibration, options, store or Store(), cluster, on_progress)
    else:
        figures = []
        for name, recipe in recipes.items():

            def progress(fraction: float, name: str = name) -> None:
                if on_progress is not None:
                    on_progress(name, fraction)

            figures.append(_measure_recipe(model, recipe, evaluation, calibration, **options, store=store, on_progress=progress))
    reads = [summarise([Window(*window) for window in row["windows"]], evaluation.name) for row in figures]
    rows = [_make_row(name, row, reads[0], read) for name, row, read in zip(recipes, figures, reads, strict=True)]
    return pd.DataFrame(rows)


def _measure_recipe(
    model: ModelHandle,
    recipe: Recipe | LayerPlan,
    evaluation: Text,
    calibration: Text,
    *,
    tokens: int,
    evaluation_tokens: int | None,
    seed: int,
    store: Store | None,
    on_progress: Callable[[float], None],
) -> dict[str, Any]:
    """Bits, the scored windows of the evaluation text, the mean block error and the seconds of one recipe."""
    options: dict[str, Any] = {"text": calibration, "tokens": tokens, "seed": seed, "store": store}
    result = quantize_model(model, recipe, on_progress=lambda step: on_progress(step.fraction), **options)
    read = perplexity(build_packed_copy(model, result.layers, result.changed_tensors), evaluation, evaluation_tokens)
    errors = measure_block_errors(model, result, evaluation, tokens=evaluation_tokens or BLOCK_TOKENS, seed=seed)
    return {
        "bits_per_weight": result.bits_per_weight,
        "nominal_bits": result.nominal_bits,
        "windows": [list(astuple(window)) for window in read.windows],
        "block_error": sum(errors) / len(errors),
        "seconds": result.seconds,
    }


def _measure_there(
    model: ModelHandle,
    recipes: Mapping[str, Recipe | LayerPlan],
    evaluation: Text,
    calibration: Text,
    options: Mapping[str, Any],
    store: Store,
    cluster: Cluster,
    on_progress: Callable[[str, float], None] | None,
) -> list[dict[str, Any]]:
    """The same of every recipe, on the workers of a cluster."""
    texts = {"evaluation": share_text(evaluation, store), "calibration": share_text(calibration, store)}
    facts, tasks = {"model": describe_model(model), **texts, **options}, []
    for name, recipe in recipes.items():
        arguments = {**facts, "recipe": recipe.to_dict(), "is_plan": isinstance(recipe, LayerPlan)}
        key = compute_key("ablation", VERSION, {**arguments, "model": model.fingerprint})
        tasks.append(Task(key, {**arguments, "name": name}, "ablation", f"{model.source} by {name}"))

    def tell(step: TaskProgress) -> None:
        if step.newest is not None and on_progress is not None:
            on_progress(step.newest.arguments["name"], 1.0)

    return run_steps(map_tasks_steps(measure_task_recipe, tasks, store, cluster), tell)


def measure_task_recipe(arguments: Mapping[str, Any], store: Store) -> dict[str, Any]:
    """One recipe of an ablation, in any process; its finished layers are kept in the store."""
    recipe = (LayerPlan if arguments["is_plan"] else Recipe).from_dict(arguments["recipe"])
    evaluation, calibration = (read_shared_text(arguments[name], store) for name in ("evaluation", "calibration"))
    options = {name: arguments[name] for name in ("tokens", "evaluation_tokens", "seed")}
    model = open_described_model(arguments["model"])
    return _measure_recipe(model, recipe, evaluation, calibration, **options, store=store, on_progress=lambda _: None)


def _make_row(name: str, figures: Mapping[str, Any], first: PerplexityResult, read: PerplexityResult) -> dict[str, Any]:
    """Bits, perplexity and errors of one recipe, and its perplexity over the first one's."""
    ratio = compute_perplexity_ratio(first, read)
    ratios = (float("nan"),) * 3 if read is first else (ratio.ratio, *split_interval(ratio.interval))
    return {
        "recipe": name,
        "bits_per_weight": figures["bits_per_weight"],
        "nominal_bits": figures["nominal_bits"],
        "perplexity": read.perplexity,
        **make_interval_columns("perplexity", read.perplexity_interval),
        **dict(zip(("ratio", "ratio_low", "ratio_high"), ratios, strict=True)),
        "block_error": figures["block_error"],
        "seconds": figures["seconds"],
    }


def measure_block_errors(
    model: ModelHandle, result: QuantizedModel, text: Text, *, tokens: int = BLOCK_TOKENS, seed: int = 0
) -> Sequence[float]:
    """How much of what each block adds to its input is lost: Σ‖out − full‖² over Σ‖full − input‖², on `tokens` tokens of `text`.

    Every block gets its full-precision input ("teacher inputs"), so that the figure is the block's own.
    """
    check_seed(seed, ModelError)
    blocks = BlockRow(model)
    passing, errors = blocks.start(iterate_windows(model, text, tokens, seed)), []
    for index in blocks.visit(passing):
        name, calls = blocks.names[index], passing.calls
        with blocks.block(index) as block, torch.no_grad():
            outputs = [call.outputs(block) for call in calls]
            changed = {
                f"{blocks.within(index, layer)}.weight": model.layer(layer).orient(result.layers[layer].weight())
                for layer in blocks.layers[index]
                if layer in result.layers
            }
            inside = {key.removeprefix(f"{name}."): value.float() for key, value in result.changed_tensors.items()}
            parameters = {key: value for key, value in inside.items() if key in dict(block.named_parameters())}
            hidden, full = [call.hidden for call in calls], [extract_hidden_states(output) for output in outputs]
            errors.append(BlockLoss(block, calls, hidden, full)(range(len(calls)), {**parameters, **changed}).item())
            passing.advance(outputs)
    return errors
