"""Take over the codes of a model that another program quantized: the same weights, packed, bit for bit."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from workbench.errors import ModelError, ShapeError
from workbench.exchange.takeover.packing import is_equal, pack_codes
from workbench.kernels import formats
from workbench.kernels.packing.packed import build_ledger
from workbench.quantized import QuantizedLayer, QuantizedModel
from workbench.recipe import LayerPlan

if TYPE_CHECKING:
    from workbench.models import ModelHandle


def take_over(
    model: "ModelHandle", layers: str = "*", *, on_progress: Callable[[float, float], None] = lambda *_: None
) -> QuantizedModel:
    """Pack the layers of a model that another program quantized, with the codes and scales that it chose.

    What is made decodes to exactly the weights of the model; each layer is compared. Layers whose format has no counterpart here
    are left as they are: `calibration["left"]` says which and why.

    Args:
        model: A model of a GGUF file, or of a checkpoint in a quantized format.
        layers: Patterns of layer names, separated by commas.
        on_progress: Called with the layers that are done and their number.

    Returns:
        The packed layers, to save, pack and compare as those that were quantized here.

    Raises:
        ModelError: Where no layer can be taken over, with the reason for the first.

    Example:
        >>> import workbench as wb
        >>> try:
        ...     wb.take_over(wb.open_model("builtin"))
        ... except wb.errors.ModelError as error:
        ...     print(str(error).partition(";")[0])
        no layer of 'builtin' can be taken over
    """
    begin, names = time.perf_counter(), model.select(layers)
    packed: dict[str, QuantizedLayer] = {}
    left: dict[str, str] = {}
    for number, name in enumerate(names):
        layer = _take_layer(model, name)
        if isinstance(layer, str):
            left[name] = layer
        else:
            packed[name] = layer
        on_progress(number + 1, len(names))
    if not packed:
        first = next(iter(left.items()), (layers, "there is no such layer"))
        raise ModelError(
            f"no layer of {model.source!r} can be taken over; {first[0]}: {first[1]}. Quantize the model here instead: "
            f"wb.quantize_model(model, recipe)."
        )
    plan = LayerPlan(tuple((name, layer.recipe) for name, layer in packed.items()))
    return QuantizedModel(model.source, packed, plan, {"left": left}, time.perf_counter() - begin, shapes=model.shapes)


def _take_layer(model: "ModelHandle", name: str) -> QuantizedLayer | str:
    """One packed layer, or the reason why there is none."""
    begin, codes = time.perf_counter(), model.codes(name)
    if isinstance(codes, str):
        return codes
    try:
        packed = pack_codes(codes)
    except ShapeError as error:
        return str(error)
    if isinstance(packed, str):
        return packed
    tree, nominal, nearest = packed
    if (tree.rows, tree.cols) != (model.layer(name).rows, model.layer(name).cols):
        return "its groups run along the outputs"
    if not is_equal(formats.decode(tree), model.weight(name)):
        return "its weights are not exactly scale times code"
    ledger, origin = build_ledger(tree, nominal), f"codes taken over from {model.layer(name).dtype}"
    return QuantizedLayer(name, tree, nearest, ledger, 0.0, seconds=time.perf_counter() - begin, edits=(origin,))
