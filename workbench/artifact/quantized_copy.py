"""A running copy of the original that shares all its memory except what quantization changed."""

import copy
from collections.abc import Mapping
from itertools import chain
from typing import Any

from torch import Tensor

from workbench.artifact.loading import replace_layers
from workbench.artifact.saving import check_belongs
from workbench.kernels.kernel_mode import Cache
from workbench.models import architecture, open_model
from workbench.models.handle import ModelHandle
from workbench.models.language_model import LanguageModel
from workbench.quantized import QuantizedLayer, QuantizedModel


def pack_model(quantized: QuantizedModel, original: ModelHandle | None = None, *, cache: Cache = "decoded") -> LanguageModel:
    """Run a quantized model on its packed layers without saving it.

    Args:
        quantized: What `wb.quantize_model` made.
        original: The model that was quantized; opened again from its source when absent.
        cache: That of `wb.load`.

    Returns:
        A model that reads and writes text; it shares everything that quantization left alone with the original.

    Raises:
        ArtifactError: When the layers do not belong to the original.
        ModelError: For encoders.

    Example:
        >>> import workbench as wb
        >>> small = wb.quantize_model(wb.open_model("builtin"), wb.recipe("rtn", bits=4), layers="*.0.mlp.down_proj")
        >>> wb.pack_model(small).generate("Once upon a time", tokens=0)
        'Once upon a time'
    """
    original = original or open_model(quantized.source)
    check_belongs(quantized, original)
    return build_packed_copy(original, quantized.layers, quantized.changed_tensors, cache=cache)


def build_packed_copy(
    model: ModelHandle,
    layers: Mapping[str, QuantizedLayer],
    changed_tensors: Mapping[str, Tensor] | None = None,
    *,
    cache: Cache = "decoded",
) -> LanguageModel:
    """The model with these layers packed, running beside the original; nothing is copied but the module tree.

    `changed_tensors` are those of the `QuantizedModel` that the layers come from, and take the place of the model's own.
    The original stays as it is, so both can write at the same time. Raises ModelError for encoders and unknown layers.
    """
    original = model.language_model()
    for name in layers:
        model.layer(name)
    with model.lock:
        tensors = chain(original.module.parameters(), original.module.buffers())
        memo: dict[int, Any] = {id(tensor): tensor for tensor in tensors}
        module = copy.deepcopy(original.module, memo)
    replace_layers(module, {name: layer.packed for name, layer in layers.items()}, cache)
    architecture.replace_parameters(module, changed_tensors or {})
    return LanguageModel(module, original.tokenizer, f"{original.name}, {len(layers)} layers packed")
