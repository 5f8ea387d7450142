"""The isolated effect of each part of a quantized model, including changed tensors outside the layers.

A gain that changed before a layer, γ', belongs to what was done to that layer: Ŵ on inputs times γ' is Ŵ diag(γ'/γ) on those
times γ. Every layer can then be put in, or back to full precision, alone, and all of them together are the quantized model.
"""

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.kernels.formats.rounding import find_rounding_bits
from workbench.kernels.matmul.packed_linear import PackedLinear
from workbench.models import architecture
from workbench.models.anatomy import AnatomyError, read_anatomy
from workbench.models.fused import FusedModel, fuse_from_facts
from workbench.models.handle import ModelHandle
from workbench.quantized import QuantizedLayer, QuantizedModel

Change = Tensor | nn.Module
Quantized = Mapping[str, QuantizedLayer] | QuantizedModel


class Scaled(nn.Module):
    """A linear module whose inputs are multiplied by `gain [in]` first."""

    def __init__(self, gain: Tensor, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.register_buffer("gain", gain)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`."""
        return self.inner(x * self.get_buffer("gain"))


def get_layers(quantized: Quantized) -> Mapping[str, QuantizedLayer]:
    """The layers by name."""
    return quantized.layers if isinstance(quantized, QuantizedModel) else quantized


def match_basis(model: ModelHandle, quantized: Quantized) -> ModelHandle:
    """The model in whose basis the layers were quantized: fused as it was then; the same function from other weights."""
    return fuse_from_facts(model, quantized.fused) if isinstance(quantized, QuantizedModel) else model


def build_replacements(model: ModelHandle, quantized: Quantized) -> dict[str, Change]:
    """What takes the place of each layer, and of each parameter beside the layers that changed, for `ModelHandle.swapped`.

    A changed gain goes into the layers that read its norm, where these are known (see `models.anatomy`) and no gain of the model
    is 0; a layer's changed bias goes with the layer. Other changed parameters stand under their own names. Put in all together
    they are the quantized model, to rounding in float32. `model` is the one that `match_basis` gives; ModelError for another.
    """
    layers = get_layers(quantized)
    quantized_model = quantized if isinstance(quantized, QuantizedModel) else None
    if quantized_model is not None and match_basis(model, quantized_model) is not model:
        raise ModelError(
            f"the layers were quantized in the model fused by {dict(quantized_model.fused)}, this one is {model!r}; "
            f"use wb.fuse(model, seed={quantized_model.fused['seed']}, residual={quantized_model.fused['residual']})."
        )
    changed = _find_changed_parameters(model, quantized_model) if quantized_model is not None else {}
    gains = _extract_layer_gains(model, changed)
    biases = {name: changed.pop(f"{name}.bias") for name in layers if f"{name}.bias" in changed}
    for name in layers:
        model.layer(name)
    stand_ins = {name: build_replacement(model, name, layer, gains.get(name), biases.get(name)) for name, layer in layers.items()}
    if head := _find_rounding_head(model, layers):
        stand_ins[head] = PackedLinear(layers[cast(str, model.embedding_name)].packed)
    others = {name: model.weight(name).float() * gain for name, gain in gains.items() if name not in layers}
    return {**stand_ins, **others, **changed}


def _find_rounding_head(model: ModelHandle, layers: Mapping[str, QuantizedLayer]) -> str | None:
    """The tied head of a quantized embedding whose stored form rounds what it multiplies: more than the embedding's weight."""
    layer = layers.get(model.embedding_name or "")
    return model.tied_head if layer is not None and find_rounding_bits(layer.packed) and model.tied_head not in layers else None


def _find_changed_parameters(model: ModelHandle, quantized_model: QuantizedModel) -> dict[str, Tensor]:
    """What the run changed beside its layers and this model does not have as it is already."""
    fused = isinstance(model, FusedModel)
    return {
        name: new for name, new in quantized_model.changed_tensors.items() if not (fused and torch.equal(model.tensor(name), new))
    }


def _extract_layer_gains(model: ModelHandle, changed: dict[str, Tensor]) -> dict[str, Tensor]:
    """γ'/γ `[cols]` by layer for the norms that changed; they are taken out of `changed`."""
    if not changed:
        return {}
    try:
        blocks = read_anatomy(architecture.build_split_module(model.config), model.source).blocks
    except AnatomyError:
        return {}  # what reads which norm is not known: its parameters stand for themselves
    layer_gains: dict[str, Tensor] = {}
    for norm, readers in (pair for block in blocks for pair in block.readers.items()):
        new = changed.get(f"{norm}.weight")
        old = None if new is None else model.tensor(f"{norm}.weight").double()
        if new is not None and old is not None and bool((old != 0).all()):
            layer_gains |= dict.fromkeys(readers, (new.double() / old).float())
            del changed[f"{norm}.weight"]
    return layer_gains


def build_replacement(
    model: ModelHandle, name: str, layer: QuantizedLayer, gain: Tensor | None = None, bias: Tensor | None = None
) -> Change:
    """A weight where that is all there is to a layer, else a module."""
    # a layer that rounds its input is more than a weight; an embedding has none that could be rounded
    rounds = bool(find_rounding_bits(layer.packed)) and model.layer(name).role in ("block", "head")
    if not rounds and bias is None:
        return layer.weight() if gain is None else layer.weight() * gain
    old_bias = model.module.get_submodule(name)._parameters.get("bias") if bias is None else bias.float()
    module: nn.Module = PackedLinear(layer.packed, old_bias)
    return module if gain is None else Scaled(gain, module)
