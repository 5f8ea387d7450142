"""The layers of a model by its config.json alone: no weight file is read, nor needed."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from workbench.errors import ModelError
from workbench.models import architecture
from workbench.models.builtin import BUILTIN, BUILTIN_FOLDER
from workbench.models.layers import is_linear, split_name


@dataclass(frozen=True)
class LayerShape:
    """One linear layer `[rows, cols]` in the blocks of a model; `block` is its block's number."""

    name: str
    rows: int
    cols: int
    block: int | None

    @property
    def weights(self) -> int:
        """How many weights it has."""
        return self.rows * self.cols


@dataclass(frozen=True)
class ModelShapes:
    """What a configuration says of a model's sizes: its layers, and the parameters beside them."""

    source: str
    layers: tuple[LayerShape, ...]
    other_parameters: int

    @property
    def weights(self) -> int:
        """Weights of all layers."""
        return sum(layer.weights for layer in self.layers)


def read_model_shapes(source: str | Path) -> ModelShapes:
    """Read the sizes of a model.

    Args:
        source: "builtin", a folder with a config.json, or a config.json itself.

    Returns:
        Its linear layers in the blocks, and how many parameters it has beside them.

    Raises:
        ModelError: Where there is no such configuration, or none of a transformers model with linear layers in its blocks.
    """
    path = BUILTIN_FOLDER if str(source) == BUILTIN else Path(source).expanduser()
    folder = path.parent if path.name == "config.json" else path
    if not folder.is_dir():
        raise ModelError(
            f"there is no configuration {str(source)!r}; give 'builtin', a folder with config.json, or a config.json."
        )
    module = architecture.build_split_module(architecture.read_config(folder))
    layers = []
    for name, child in module.named_modules():
        position = split_name(name)
        if position is not None and is_linear(child):
            shape = child.get_parameter("weight").shape
            rows, cols = shape if isinstance(child, nn.Linear) else reversed(shape)
            layers.append(LayerShape(name, rows, cols, position[0]))
    if not layers:
        raise ModelError(f"{folder} describes no linear layers in its blocks ({type(module).__name__}); nothing to quantize.")
    tied = getattr(module, "all_tied_weights_keys", None) or {}
    parameters = sum(parameter.numel() for name, parameter in module.named_parameters() if name not in tied)
    return ModelShapes(str(source), tuple(layers), parameters - sum(layer.weights for layer in layers))
