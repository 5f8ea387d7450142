"""The plugin that transformers calls to load a saved model: a quantization method like its own (bitsandbytes, gptq, ...).

The one module of this folder that imports transformers at its top: it is imported by the hook that waits for transformers, see
`workbench.artifact.transformers_plugin`, which adds what this floor does not know: how a saved folder is read.
"""

from abc import abstractmethod
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers.quantizers import auto
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from workbench.errors import ModelError
from workbench.kernels.matmul.packed_matrix import PackedMatrix
from workbench.models.config_file import QUANT_METHOD
from workbench.models.layers import split_name


class PackedConfig(QuantizationConfigMixin):
    """`quantization_config` of a saved model: its entries as they are."""

    def __init__(self, quant_method: str = QUANT_METHOD, **facts: Any) -> None:
        self.quant_method = cast(Any, quant_method)  # transformers types it as one of its own methods
        self.__dict__.update(facts)


class PackedQuantizer(HfQuantizer):
    """Puts packed layers into a model that transformers builds and fills with all other tensors.

    The weights stay as they were saved: the model runs but does not learn, and is saved again by copying its folder.
    """

    requires_calibration = True  # in the words of transformers: from_pretrained quantizes nothing by this method

    @property
    @abstractmethod
    def file(self) -> str:
        """Name of the file that holds all tensors."""

    @abstractmethod
    def put_layers_in(self, model: nn.Module, folder: Path) -> None:
        """Put the packed layers of a saved folder into an empty model, after checking every byte."""

    def update_attn_implementation(self, config: Any) -> Any:
        """The configuration before anything is built from it: where the tensors are, and float32 unless a dtype is asked for.

        The one hook that sees it; transformers has called it by other names.
        """
        entry = getattr(config, "transformers_weights", None)
        if entry != self.file:  # two of its names are called in one loading
            self._entry, config.transformers_weights, config.dtype = entry, self.file, torch.float32
        return config

    update_tp_plan = update_ep_plan = update_attn_implementation

    def _process_model_before_weight_loading(self, model: Any, **facts: Any) -> None:
        self._folder = Path(facts["checkpoint_files"][0]).parent
        with torch.device("cpu"):  # the model is being built on the meta device
            self.put_layers_in(model, self._folder)
        self._stored = _set_tensors_aside(model)
        _expect_packed(model)

    def _process_model_after_weight_loading(self, model: Any, **facts: Any) -> Any:
        devices = {parameter.device for parameter in model.parameters()}
        if len(devices) > 1:
            names = ", ".join(sorted(map(str, devices)))
            raise ModelError(f"{self._folder} was spread over {names}, but packed layers run on one device; give device_map one.")
        for layer, buffers in self._stored.items():
            del layer.weight
            layer._buffers.update(buffers)
            layer.to(model.device)
        self._stored = {}
        model.config.transformers_weights = self._entry
        return model.requires_grad_(requires_grad=False)

    def is_serializable(self) -> bool:
        """Asked by `save_pretrained` alone, whose own refusal names no way out."""
        raise ModelError(f"a packed model cannot be saved by save_pretrained; copy its folder {self._folder} instead.")

    @property
    def is_trainable(self) -> bool:
        """Whether gradients pass: no."""
        return False


def _set_tensors_aside(model: nn.Module) -> dict[PackedMatrix, dict[str, Tensor | None]]:
    """Take the stored tensors out of all packed layers: what transformers does not find in its file, it overwrites.

    Each layer gets a `weight` without memory instead, since some models initialize the weights of layers that they know by
    name (GPT-2); it is marked as one that needs no initial value.
    """
    stored: dict[PackedMatrix, dict[str, Tensor | None]] = {}
    for part in model.modules():
        if isinstance(part, PackedMatrix):
            stored[part] = {name: part._buffers.pop(name) for name in part.stored_names}
            weight: Any = torch.empty(part.shape, device="meta")
            weight._is_hf_initialized = True
            part.weight = weight
    return stored


def _expect_packed(model: Any) -> None:
    """Let transformers find tensors named `layer|path|tensor` in the file without a report that no module has them."""
    ignored_keys = model._keys_to_ignore_on_load_unexpected
    kind = list if ignored_keys is None else type(ignored_keys)  # None or a list in transformers 5.0, later a set
    model._keys_to_ignore_on_load_unexpected = kind([*(ignored_keys or ()), r"\|"])


def find_layer_name(model: Any, name: str) -> str | None:
    """A saved layer's name in a model with or without a head: transformers puts the base model's prefix before it, or not.

    None for an output head where the model has none; ModelError for a layer of a block that it does not have.
    """
    prefix, parts = f"{model.base_model_prefix}.", dict(model.named_modules())
    alias = next((alias for alias in (name, name.removeprefix(prefix), f"{prefix}{name}") if alias in parts), None)
    if alias is None and split_name(name) is not None:
        raise ModelError(f"{type(model).__name__} has no layer {name!r}; open the folder with the class that was saved.")
    return alias


def register(quantizer: type[PackedQuantizer]) -> None:
    """Make `quantizer` one of the methods of transformers, once."""
    if QUANT_METHOD not in auto.AUTO_QUANTIZER_MAPPING:
        auto.register_quantization_config(QUANT_METHOD)(PackedConfig)
        auto.register_quantizer(QUANT_METHOD)(quantizer)
