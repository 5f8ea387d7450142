"""Quantize many layers of an open model: each by itself under given statistics, or block by block in sequence."""

import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from workbench.calibration import DEFAULT_TOKENS
from workbench.errors import RecipeError
from workbench.jobs import run_steps
from workbench.models.fused import FusedModel
from workbench.quantized import QuantizedLayer, QuantizedModel
from workbench.quantizers.contract import State
from workbench.quantizers.pipeline import check_recipe, fit_transform, quantize_layer
from workbench.quantizers.runs import block_sequence
from workbench.quantizers.runs.fused_plan import plan_for_fused
from workbench.quantizers.runs.progress import LayerProgress, Place
from workbench.quantizers.runs.quantize_layer import Stats, check_guided, find_guided, find_moment, find_token_count, is_measured
from workbench.quantizers.runs.sharing import Scopes
from workbench.quantizers.shrinkage import collect_calibration_facts, warn_of_few
from workbench.recipe import LayerPlan, Recipe
from workbench.seeds import check_seed
from workbench.store import Store

if TYPE_CHECKING:
    from workbench.models import ModelHandle
    from workbench.models.text import Text


def quantize_model(
    model: "ModelHandle",
    recipe: Recipe | LayerPlan,
    stats: Stats | None = None,
    layers: str = "*",
    on_progress: Callable[[LayerProgress], None] | None = None,
    *,
    text: "Text | None" = None,
    tokens: int = DEFAULT_TOKENS,
    seed: int = 0,
    store: Store | None = None,
) -> QuantizedModel:
    """Quantize every layer whose name matches `layers` and that the plan gives a recipe; the others stay as they are.

    With `stats`, or with nothing, every layer is quantized by itself. With `text` the blocks are worked on in sequence: each
    layer sees what the quantized layers before it produce, transforms are learned for a whole block at once, and statistics are
    measured on the way.

    Where the output head and the token embedding are tied, a head that is named alone becomes a matrix of its own, beside the
    embedding, which stays as it is; an embedding that is named is quantized for both, and counted once. An embedding is
    quantized by its weights alone, in a run on text before all blocks; its output error is not measured. On a fused model
    (`wb.fuse`) a recipe without a transform gets an online Hadamard where none could be fused; a plan is taken as it is.

    Args:
        model: A model from `wb.open_model`.
        recipe: A recipe for all layers, or a `wb.LayerPlan`.
        stats: What `wb.calibrate` gives, for recipes that need it; not together with `text`.
        layers: Patterns separated by commas. "*" is every layer of the blocks; output head and embedding are matched only by a
            pattern, or a rule of the plan, that spells their name: "*,lm_head,*.embed_tokens".
        on_progress: Called with a LayerProgress for every step.
        text: A text from `wb.text`, to quantize in sequence.
        tokens: At most so many tokens of `text`.
        seed: Draws the order of its documents.
        store: Where finished layers of a run in sequence are kept, so that the same call goes on after a kill, with the same
            result.

    Returns:
        Quantized layers by name, with their ledger, their errors and the plan that made them.

    Raises:
        RecipeError: When no layer matches, when a recipe needs calibration and there is none, or when both `stats` and `text` are
            given.
        ModelError: When the model cannot be run on the text.

    Example:
        >>> import workbench as wb
        >>> small = wb.quantize_model(wb.open_model("builtin"), wb.recipe("rtn", bits=4), layers="*.0.mlp.*")
        >>> len(small.layers), round(small.bits_per_weight, 2)
        (3, 4.16)
    """
    steps = quantize_model_steps(model, recipe, stats, layers, text=text, tokens=tokens, seed=seed, store=store)
    return run_steps(steps, on_progress)


def quantize_model_steps(
    model: "ModelHandle",
    recipe: Recipe | LayerPlan,
    stats: Stats | None = None,
    layers: str = "*",
    *,
    text: "Text | None" = None,
    tokens: int = DEFAULT_TOKENS,
    seed: int = 0,
    store: Store | None = None,
) -> Generator[LayerProgress, None, QuantizedModel]:
    """The same as a generator that yields LayerProgress and returns the model, for a job that can be stopped."""
    check_seed(seed, RecipeError)
    begin = time.perf_counter()
    plan = recipe if isinstance(recipe, LayerPlan) else plan_for_fused(model, recipe)
    if text is None:
        if store is not None:
            raise RecipeError("store= caches the layers of a sequential run; give text= too, or omit store=.")
        chosen = choose_layers(model, plan, layers, stats)
        _check_unrefined(chosen)
        changed: Mapping[str, Tensor] = {}
        done = yield from _quantize_one_by_one(model, plan, chosen, stats)
        facts = stats.facts() if stats is not None and hasattr(stats, "facts") else {}
    else:
        if stats is not None:
            raise RecipeError("stats= and text= exclude each other: a sequential run measures its own statistics.")
        chosen = choose_layers(model, plan, layers, None, measured=True)
        run = block_sequence.BlockSequence(model, plan, chosen, text, tokens=tokens, seed=seed, store=store)
        done = yield from run.steps()
        facts, changed = run.facts(), run.changed_tensors
    warn_of_few(done)
    facts = {**facts, **collect_calibration_facts(done)}
    result = QuantizedModel(model.source, done, plan, facts, time.perf_counter() - begin, changed, shapes=model.shapes)
    if isinstance(model, FusedModel):
        return replace(result, changed_tensors={**model.changed_tensors(done), **changed}, fused=model.facts)
    return result


def _quantize_one_by_one(
    model: "ModelHandle", plan: LayerPlan, chosen: dict[str, Recipe], stats: Stats | None
) -> Generator[LayerProgress, None, dict[str, QuantizedLayer]]:
    """Every layer by itself, in the model's order, one layer's weights at a time; transforms that learn come first."""
    learners = [name for name, layer_recipe in chosen.items() if layer_recipe.transform.learns]
    scopes, phases = Scopes(plan, chosen), 2 if learners else 1
    states: dict[str, State] = {}
    yield from scopes.prepare_beginning(model, phases)
    for index, name in enumerate(learners):
        position, moment = Place(name, index, len(learners), 0, phases), find_moment(model.layer(name), chosen[name], stats)
        weight, tokens = model.weight(name), find_token_count(name, stats)
        learning = fit_transform(weight, moment, chosen[name], scopes.shared(name), tokens=tokens)
        states[name] = yield from position.follow("learn", learning)
    done: dict[str, QuantizedLayer] = {}
    for index, (name, layer_recipe) in enumerate(chosen.items()):
        position, layer = Place(name, index, len(chosen), phases - 1, phases), model.layer(name)
        moment = find_moment(layer, layer_recipe, stats)
        if scopes.waits(name):
            yield position.progress("share")
            scopes.prepare(name, model, stats, states)
        weight, shared, facts = (
            model.weight(name),
            scopes.shared(name),
            (find_token_count(name, stats), is_measured(layer, stats)),
        )
        guided = find_guided(layer, layer_recipe, stats)
        steps = quantize_layer(
            weight, moment, layer_recipe, shared, name, states.get(name), tokens=facts[0], measured=facts[1], guided=guided
        )
        result = scopes.mark((yield from position.follow("layer", steps)))
        done[name] = result.on_disk() if model.streams else result
        yield position.progress("done", result=done[name])
    return done


def _check_unrefined(chosen: Mapping[str, Recipe]) -> None:
    """Raise RecipeError where a recipe refines blocks, which layers quantized by themselves do not make up."""
    for name, recipe in chosen.items():
        if recipe.refines:
            part = f"refinement {recipe.refinement.name!r}"
            raise RecipeError(f"{part} of layer {name!r} works on blocks in sequence; give text= instead of stats=.")


def choose_layers(
    model: "ModelHandle", plan: LayerPlan, pattern: str, stats: Stats | None, *, measured: bool = False
) -> dict[str, Recipe]:
    """The recipe of every layer to quantize, in the model's order; all are checked before the first one runs.

    `measured` says that statistics will be there when a layer needs them.
    """
    matching = select_layer_names(model, plan, pattern)
    pairs = ((name, plan.recipe_for(name)) for name in matching)
    chosen = _merge_tied_layers(model, {name: recipe for name, recipe in pairs if recipe is not None})
    if not chosen:
        rules = ", ".join(repr(rule) for rule, _ in plan.rules)
        raise RecipeError(
            f"layers {pattern!r} with the plan's {rules} match none of {len(model.layer_names)} layers; "
            f"names look like {model.layer_names[0]!r}, * matches anything{_describe_optional_layers(model)}."
        )
    for name, recipe in chosen.items():
        _check_rounding(model, name, recipe)
        check_recipe(recipe, find_moment(model.layer(name), recipe, stats), measured=measured)
        check_guided(recipe)
        if not measured:
            find_guided(model.layer(name), recipe, stats)
    return chosen


def _merge_tied_layers(model: "ModelHandle", chosen: dict[str, Recipe]) -> dict[str, Recipe]:
    """The layers without a head that is tied to a chosen embedding: one matrix, quantized once, serves both."""
    head, embedding = model.head_name, model.embedding_name
    if head not in chosen or embedding not in chosen or head != model.tied_head:
        return chosen
    if chosen[head] != chosen[embedding]:
        raise RecipeError(
            f"{head!r} and {embedding!r} are one matrix (tied), but the plan gives them two recipes; give both the same, or name "
            f"only {head!r}, which then becomes a separate matrix."
        )
    return {name: recipe for name, recipe in chosen.items() if name != head}


def _check_rounding(model: "ModelHandle", name: str, recipe: Recipe) -> None:
    """Raise RecipeError where a router is to round its input, which its own forward pass reads."""
    if model.layer(name).role == "router" and recipe.activations.name != "keep":
        raise RecipeError(
            f"activations {recipe.activations.name!r} quantize a layer's input, but the router {name!r} does its own matmul; "
            f"use a plan that gives it a recipe without them."
        )


def add_head(model: "ModelHandle", plan: Recipe | LayerPlan, recipe: Recipe) -> tuple[LayerPlan, str]:
    """The plan with this recipe for the output head, and the name of the layer that gets it.

    Where the head is tied to the embedding that is the embedding, whose one packed matrix then serves both. RecipeError for a
    model without a head.
    """
    name = model.head_name if model.tied_head is None else model.embedding_name
    if name is None:
        raise RecipeError(f"{model.source!r} has no output head that can be quantized; leave --head out.")
    rules = plan.rules if isinstance(plan, LayerPlan) else plan_for_fused(model, plan).rules
    return LayerPlan(((name, recipe), *rules)), name


def select_layer_names(model: "ModelHandle", recipe: Recipe | LayerPlan, patterns: str) -> list[str]:
    """The layers that the patterns match; without any choice ("*") also the optional ones that a rule of the plan spells."""
    names = model.select(patterns)
    if patterns == "*" and isinstance(recipe, LayerPlan):
        spelled = model.select(",".join(pattern for pattern, _ in recipe.rules))
        names += [name for name in model.optional_names if name in spelled]
    return names


def _describe_optional_layers(model: "ModelHandle") -> str:
    """What a pattern has to spell, for an error that speaks of patterns."""
    routers = model.router_names
    names = [repr(name) for name in (routers[0] if routers else None, model.head_name, model.embedding_name) if name is not None]
    names[:1] = [f"{len(routers)} routers like {names[0]}"] if routers else names[:1]
    return f" but {', '.join(names)}, which {'has' if len(names) == 1 else 'have'} to be named" if names else ""
