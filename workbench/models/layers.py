"""Which modules of a model are layers to quantize: the linear maps inside its transformer blocks, not embeddings or heads."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Layer:
    """One linear layer `[rows, cols] = [out_features, in_features]`.

    `name` is the module's, `tensor` the checkpoint's; `transposed` says that the checkpoint stores `[cols, rows]`
    (GPT-2's Conv1D). `block` counts transformer blocks, `matrix` is the name inside the block.
    """

    name: str
    block: int
    matrix: str
    rows: int
    cols: int
    dtype: str
    tensor: str
    transposed: bool

    def orient(self, weight: Tensor) -> Tensor:
        """A stored weight as `[rows, cols]`, or one `[rows, cols]` as it is stored: the same transposition."""
        return weight.T.contiguous() if self.transposed else weight


def find_layers(module: nn.Module, checkpoint: Checkpoint) -> dict[str, Layer]:
    """The layers of `module` by name, in its order, each matched to a tensor of `checkpoint`.

    Raises ModelError when there are none, when the checkpoint lacks one, or when a shape is not what the configuration says.
    """
    prefix = getattr(module, "base_model_prefix", "")
    layers = {}
    for name, child in module.named_modules():
        place = split_name(name)
        if place is None or not is_linear(child):
            continue
        transposed = not isinstance(child, nn.Linear)
        tensor = find_tensor(f"{name}.weight", prefix, checkpoint)
        entry, shape = checkpoint.entries[tensor], tuple(child.weight.shape)
        if entry.shape != shape:
            raise ModelError(
                f"{entry.file} stores {tensor!r} as {list(entry.shape)}, but config.json says {list(shape)}; "
                f"the two files do not belong together."
            )
        rows, cols = reversed(shape) if transposed else shape
        layers[name] = Layer(name, *place, rows, cols, entry.dtype, tensor, transposed)
    if not layers:
        raise ModelError(
            f"{checkpoint.folder} has no linear layers in its blocks ({type(module).__name__}); nothing to quantize."
        )
    return layers


def is_linear(module: nn.Module) -> bool:
    """nn.Linear, or transformers' Conv1D, which is the same map stored transposed."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def split_name(name: str) -> tuple[int, str] | None:
    """Block index and name inside the block: "model.layers.3.mlp.up_proj" to (3, "mlp.up_proj"); None outside of blocks."""
    parts = name.split(".")
    for index, part in enumerate(parts[:-1]):
        if part.isdecimal():
            return int(part), ".".join(parts[index + 1 :])
    return None


def find_tensor(name: str, prefix: str, checkpoint: Checkpoint) -> str:
    """The checkpoint's name of a module's tensor; ModelError when it has none."""
    stored = stored_name(name, prefix, checkpoint)
    if stored is None:
        raise ModelError(
            f"{checkpoint.folder} has no weight {name!r}, which its config.json asks for; the checkpoint is incomplete."
        )
    return stored


def stored_name(name: str, prefix: str, checkpoint: Checkpoint) -> str | None:
    """The checkpoint's name of a module's tensor, or None: checkpoints are saved with or without the base model's prefix."""
    candidates = (name, name.removeprefix(f"{prefix}."), f"{prefix}.{name}")
    return next((candidate for candidate in candidates if candidate in checkpoint.entries), None)


def layer_table(layers: Iterable[Layer]) -> "pd.DataFrame":
    """One row a layer: name, block, matrix, rows, cols, dtype (as stored), parameters."""
    import pandas as pd

    columns = ["name", "block", "matrix", "rows", "cols", "dtype"]
    table = pd.DataFrame([{column: getattr(layer, column) for column in columns} for layer in layers])
    return table.assign(parameters=table["rows"] * table["cols"])


def unknown_layer(given: str, known: list[str]) -> ModelError:
    """What to say about a layer name that does not exist."""
    near = difflib.get_close_matches(given, known, n=1, cutoff=0.0)[0]
    return ModelError(f"unknown layer {given!r}; did you mean {near!r}? model.layers() lists all {len(known)}.")
