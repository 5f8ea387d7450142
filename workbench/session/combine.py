"""A session's results combined: single layers and runs over the whole model as one quantized model, or one layer alone."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from workbench.analysis.predictions.divergence import Divergence
from workbench.analysis.predictions.isolated_effects import build_replacements
from workbench.errors import WorkbenchError
from workbench.quantized import QuantizedLayer, QuantizedModel
from workbench.recipe import LayerPlan
from workbench.session.shared import SharedModel


def combine_layers(
    shared: SharedModel, layers: Mapping[str, QuantizedLayer], quantized_model: QuantizedModel | None, alone: Collection[str]
) -> QuantizedModel:
    """These layers as one model; with what the last run (`quantized_model`) changed beside them as long as one is of it.

    WorkbenchError for layers quantized `alone` among others of a run that changed more than its layers: they take other inputs.
    """
    unchanged = (
        [] if quantized_model is None else [name for name, layer in layers.items() if quantized_model.layers.get(name) is layer]
    )
    if quantized_model is not None and len(unchanged) == len(layers):
        return quantized_model
    if quantized_model is not None and unchanged and alone and (quantized_model.changed_tensors or quantized_model.fused):
        changed = (
            "fused the model"
            if quantized_model.fused
            else f"changed more than its layers ({next(iter(quantized_model.changed_tensors))})"
        )
        raise WorkbenchError(
            f"{', '.join(alone)}: quantized alone, but the last run over the whole model {changed}, so the results do not "
            "fit together. Quantize the whole model again; the effect of this layer alone is shown in What-if."
        )
    plan = LayerPlan(tuple((name, layer.recipe) for name, layer in layers.items()))
    if quantized_model is not None and unchanged:
        return replace(quantized_model, layers=layers, plan=plan)
    facts = shared.stats().facts() if shared.is_calibrated else {}
    return QuantizedModel(shared.model.source, layers, plan, facts, shapes=shared.model.shapes)


def measure_layer_effect(
    shared: SharedModel, result: QuantizedLayer, quantized_model: QuantizedModel | None, edited: QuantizedLayer | None = None
) -> Divergence:
    """What a layer does alone in the model, on the evaluation text; what its run changed before it goes with it.

    `edited` is what was made of the layer by hand, to be measured in its place.
    """
    name, layer_result = result.name, edited or result
    if quantized_model is None or quantized_model.layers.get(name) is not result:
        return shared.replay().divergence({name: layer_result})
    replay, run = (
        shared.replay(quantized_model.fused),
        replace(quantized_model, layers={**quantized_model.layers, name: layer_result}),
    )
    return replay.divergence({name: build_replacements(replay.model, run)[name]})
