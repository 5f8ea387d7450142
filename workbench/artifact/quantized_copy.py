"""A second, running model beside the original that shares all its memory but what quantization changed."""

import copy
from collections.abc import Mapping
from itertools import chain
from typing import Any

from torch import Tensor

from workbench.artifact.loading import replace_layers
from workbench.kernels.options import Cache
from workbench.models import architecture
from workbench.models.handle import ModelHandle
from workbench.models.language_model import LanguageModel
from workbench.quantized import QuantizedLayer


def twin(
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
