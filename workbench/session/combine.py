"""What a session has quantized, layer by layer and in runs over the whole model, taken together; and one layer of it alone."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from workbench.analysis.predictions.divergence import Divergence
from workbench.analysis.predictions.isolated_effects import applied
from workbench.errors import WorkbenchError
from workbench.quantized import QuantizedLayer, QuantizedModel
from workbench.recipe import LayerPlan
from workbench.session.shared import SharedModel


def together(
    shared: SharedModel, layers: Mapping[str, QuantizedLayer], whole: QuantizedModel | None, alone: Collection[str]
) -> QuantizedModel:
    """These layers as one model; with what `whole`, the last run over the model, changed beside them as long as one is of it.

    WorkbenchError for layers quantized `alone` among others of a run that changed more than its layers: they take other inputs.
    """
    own = [] if whole is None else [name for name, layer in layers.items() if whole.layers.get(name) is layer]
    if whole is not None and len(own) == len(layers):
        return whole
    if whole is not None and own and alone and (whole.changed_tensors or whole.fused):
        changed = (
            "fused the model before" if whole.fused else f"changed more than its layers ({next(iter(whole.changed_tensors))})"
        )
        raise WorkbenchError(
            f"{', '.join(alone)}: quantized alone, and the last run over the whole model {changed}, so they do not fit together. "
            "Quantize the whole model again; what this layer does alone is in What-if."
        )
    plan = LayerPlan(tuple((name, layer.recipe) for name, layer in layers.items()))
    if whole is not None and own:
        return replace(whole, layers=layers, plan=plan)
    facts = shared.stats().facts() if shared.is_calibrated else {}
    return QuantizedModel(shared.model.source, layers, plan, facts, shapes=shared.model.shapes)


def effect(
    shared: SharedModel, result: QuantizedLayer, whole: QuantizedModel | None, edited: QuantizedLayer | None = None
) -> Divergence:
    """What a layer does alone in the model, on the evaluation text; what its run changed before it goes with it.

    `edited` is what was made of the layer by hand, to be measured in its place.
    """
    name, made = result.name, edited or result
    if whole is None or whole.layers.get(name) is not result:
        return shared.replay().divergence({name: made})
    replay, run = shared.replay(whole.fused), replace(whole, layers={**whole.layers, name: made})
    return replay.divergence({name: applied(replay.model, run)[name]})
