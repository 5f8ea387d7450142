"""The backward pass before a run in sequence: how strongly the loss depends on the outputs of layers with guided moments.

Gradients are those of the original model. Inputs are weighted later, as they come through the quantized layers before.
"""

from collections.abc import Generator
from typing import TYPE_CHECKING

from workbench.errors import RecipeError
from workbench.guided_moments import TokenWeights
from workbench.jobs import map_steps
from workbench.models.output_gradients import measure_token_weights_steps
from workbench.quantizers.contract import Snapshot
from workbench.quantizers.runs.progress import LayerProgress, Place
from workbench.store import compute_key

if TYPE_CHECKING:
    from workbench.quantizers.runs.block_sequence import BlockSequence


def weigh_tokens(run: "BlockSequence") -> Generator[LayerProgress, None, dict[str, TokenWeights]]:
    """Token weights of the layers whose recipes have guided moments, from the run's store where they are there.

    RecipeError for experts: a router may send them other tokens once the layers before it are quantized.
    """
    layers = {name: run.model.layer(name) for name, recipe in run.chosen.items() if recipe.guided}
    groups = {name: run.chosen[name].guided for name, layer in layers.items() if layer.role != "embedding"}
    if not groups:
        return {}
    if experts := [name for name in groups if layers[name].expert is not None]:
        raise RecipeError(
            f"guided moments of the expert {experts[0]!r} cannot be measured in sequence, as its tokens change with the layers "
            f"before it; give stats=wb.calibrate(model, text, guided={groups[experts[0]]}) instead of text=."
        )
    store, calibration = run.finished.store, run.calibration
    made_from = [calibration[fact] for fact in ("fingerprint", "tokens", "seed")]
    key = compute_key("token weights", run.model.fingerprint, made_from, groups)
    if store is not None and (entry := store.get(key)) is not None:
        read = entry.tensors
        return {name: TokenWeights(read[f"{name}.tokens"], read[f"{name}.rows"]) for name in entry.facts["layers"]}
    position = Place(run.model.source, 0, len(run.chosen), 0, run.phases)

    def tell(share: float) -> LayerProgress:
        stage = f"reading gradients of the loss: {share:.0%} of the text"
        return position.progress("share", Snapshot("share", 0, 1, {"stage": stage}))

    weights = yield from map_steps(measure_token_weights_steps(run.model, groups, run.windows, seed=run.seed), tell)
    if store is not None:
        tensors = {f"{name}.tokens": one.tokens for name, one in weights.items()}
        tensors |= {f"{name}.rows": one.rows for name, one in weights.items()}
        what = f"{run.model.source}: {len(weights)} layers on {calibration['tokens']:,} tokens of {calibration['text']}"
        store.put(key, tensors, {"layers": list(weights)}, kind="gradients", what=what)
    return weights
