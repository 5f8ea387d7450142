"""What is written: the tensors of an original or of a saved quantized model, decoded one at a time."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from workbench.artifact import PackedModel, is_artifact
from workbench.artifact.folder_layout import CONFIG, find_model_file
from workbench.artifact.loading import find_layer_shape, read_quantized_model
from workbench.errors import ArtifactError
from workbench.kernels.formats.format import decode
from workbench.models import ModelHandle, architecture, open_model
from workbench.models.config_file import read_fields
from workbench.models.experts import StackLayout, find_stacks, iterate_expert_names
from workbench.models.layers import is_linear
from workbench.quantized import QuantizedLayer, QuantizedModel, classify_tensor

if TYPE_CHECKING:
    from transformers import PretrainedConfig

OURS = ("quantization_config", "transformers_weights")  # what config.json of a saved folder says to transformers


@dataclass(frozen=True)
class Source:
    """A model to write: `layers` are its quantized ones, `other_names` all other tensors, which `read_other` reads as stored.

    `folder` holds the configuration and the tokenizer. Names are those of the module with its experts split.
    """

    name: str
    folder: Path
    config: "PretrainedConfig"
    layers: Mapping[str, QuantizedLayer]
    other_names: tuple[str, ...]
    read_other: Callable[[str], Tensor]

    @cached_property
    def module(self) -> nn.Module:
        """The module without its weights, its experts in stacks as transformers builds it."""
        return architecture.build_module(self.config)

    @cached_property
    def split_module(self) -> nn.Module:
        """The same with experts as layers of their own."""
        return architecture.build_split_module(self.config)

    @cached_property
    def stacks(self) -> dict[str, StackLayout]:
        """The parameters that hold experts."""
        return find_stacks(self.module)

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The model's config.json without what is said there of how it is quantized."""
        fields = read_fields(self.folder / CONFIG)
        return {name: value for name, value in fields.items() if name not in OURS}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every tensor once, in the module's order: quantized layers as `NAME.weight`."""
        present = {*self.other_names, *(f"{name}.weight" for name in self.layers)}
        order = list(self.split_module.state_dict(keep_vars=True))
        return tuple(name for name in order if name in present) + tuple(sorted(present - set(order)))

    @cached_property
    def stacked_names(self) -> tuple[str, ...]:
        """The same with the experts of a parameter as one tensor."""
        stack_of = {name: stack for stack, layout in self.stacks.items() for name, _ in iterate_expert_names(stack, layout)}
        return tuple(dict.fromkeys(stack_of.get(name, name) for name in self.names))

    def find_layer(self, name: str) -> QuantizedLayer | None:
        """The quantized layer that a tensor is the weight of, None where it is stored as in the original."""
        return self.layers.get(name.removesuffix(".weight")) if name.endswith(".weight") else None

    def weight(self, name: str) -> Tensor:
        """A matrix `[out, in]`: decoded to float32, or as stored where its layer is not quantized."""
        layer = self.find_layer(name)
        return self._orient(name, self.read_other(name)) if layer is None else decode(layer.packed)

    def tensor(self, name: str) -> Tensor:
        """Any tensor as the module has it; experts in their stack."""
        if name in self.stacks:
            layout = self.stacks[name]
            stack = torch.stack([layout.orient(self.weight(expert)) for expert, _ in iterate_expert_names(name, layout)])
            return stack.flatten(0, 1) if layout.flat else stack
        layer = self.find_layer(name)
        return self.read_other(name) if layer is None else self._orient(name, decode(layer.packed))

    def parts(self, name: str) -> list[str]:
        """The tensors that one of `stacked_names` consists of."""
        return [part for part, _ in iterate_expert_names(name, self.stacks[name])] if name in self.stacks else [name]

    def count_bits(self, name: str) -> float:
        """Bits that the source stores for a tensor."""
        layer = self.find_layer(name)
        return 8.0 * self.read_other(name).nbytes if layer is None else layer.ledger.total_bits

    def classify(self, name: str, shape: Iterable[int]) -> str:
        """What a tensor is: layers, embedding, head, norms, biases."""
        return classify_tensor(name, tuple(shape)).removeprefix("other ")

    def _orient(self, name: str, matrix: Tensor) -> Tensor:
        """A matrix between `[out, in]` and the module's orientation, which differ for GPT-2's Conv1D."""
        path = name.removesuffix(".weight")
        if matrix.ndim != 2 or path == name:
            return matrix
        part = self.split_module.get_submodule(path)
        return matrix.T.contiguous() if is_linear(part) and not isinstance(part, nn.Linear) else matrix


def open_source(source: str | Path | ModelHandle | PackedModel) -> Source:
    """A saved folder, or a model as it is; ArtifactError for a quantized model that is not saved."""
    if isinstance(source, QuantizedModel):
        raise ArtifactError("a quantized model is exported from its folder; save it with wb.save and give that folder.")
    if isinstance(source, PackedModel):
        return _open_artifact(source.folder)
    if isinstance(source, str | Path) and is_artifact(Path(source).expanduser()):
        return _open_artifact(Path(source).expanduser().absolute())
    model = source if isinstance(source, ModelHandle) else open_model(source)
    return Source(model.source, model.folder, model.config, {}, tuple(model.other_names(())), model.tensor)


def _open_artifact(folder: Path) -> Source:
    """A folder that `wb.save` wrote, checked as `wb.load` does; its packed tensors stay mapped from their file."""
    config = architecture.read_config(folder, packed=True)
    module = architecture.build_split_module(config)
    quantized = read_quantized_model(folder, lambda name: find_layer_shape(module, name))
    file = find_model_file(folder)

    def read_other(name: str) -> Tensor:
        with safe_open(file, framework="pt") as tensors:
            tensor: Tensor = tensors.get_tensor(name)
            return tensor

    return Source(quantized.source, folder, config, quantized.layers, tuple(quantized.shapes), read_other)
