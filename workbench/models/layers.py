"""The layers of a model that are quantized: linear maps inside its blocks; head, embedding and routers on request."""

import difflib
import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.json_value import shorten_value
from workbench.models.tensor_map import TensorMap

if TYPE_CHECKING:
    import pandas as pd

PLAIN_SUBCLASSES = {"FalconLinear"}  # x Wᵀ + b, written otherwise

ROUTER = re.compile(r"Router|TopK|MoEGate|MoeGate")  # classes that choose experts for a token

Role = Literal["block", "router", "head", "embedding"]


@dataclass(frozen=True)
class Layer:
    """One linear layer `[rows, cols] = [out_features, in_features]`.

    `name` is the module's; `transposed` says that its parameter is `[cols, rows]` (GPT-2's Conv1D). `block` counts transformer
    blocks, None outside of them; `matrix` is the name inside the block. `expert` is the expert's number in a mixture, None for a
    layer that every token passes. `dtype` is the type in which the weight is stored, or the format that another program
    quantized it to, and `bits` are those that are stored for each weight, scales included. `role` is "block"
    for the linear maps of the blocks, else that of an optional layer: a "router" multiplies and then chooses experts, the rows of
    an "embedding" are looked up by token and have no input to calibrate on.
    """

    name: str
    block: int | None
    matrix: str
    rows: int
    cols: int
    dtype: str
    transposed: bool
    expert: int | None = None
    role: Role = "block"
    bits: float = 16.0

    @property
    def tensor(self) -> str:
        """The name of its weight in the module."""
        return f"{self.name}.weight"

    def orient(self, weight: Tensor) -> Tensor:
        """A stored weight as `[rows, cols]`, or one `[rows, cols]` as it is stored: the same transposition."""
        return weight.T.contiguous() if self.transposed else weight


def find_layers(module: nn.Module, tensors: TensorMap) -> dict[str, Layer]:
    """The layers of `module` (its experts split) by name, in its order, each with its weight in `tensors`.

    Raises ModelError when there are none, or when the checkpoint lacks one.
    """
    layers = {}
    for name, child in module.named_modules():
        position = split_name(name)
        if position is None or not is_linear(child):
            continue
        weight = f"{name}.weight"
        if not tensors.holds(weight):
            if weight in tensors.tied:
                raise ModelError(
                    f"{tensors.checkpoint.folder} has blocks that share their weights ({weight!r} is {tensors.tied[weight]!r}), "
                    f"which {type(module).__name__} stores once; such models cannot be quantized here; use one "
                    f"without shared blocks."
                )
            raise ModelError(
                f"{tensors.checkpoint.folder} has no weight {weight!r}, which its config.json asks for; "
                f"the checkpoint is incomplete."
            )
        transposed = not isinstance(child, nn.Linear)
        parameter = child.get_parameter("weight")
        rows, cols = reversed(parameter.shape) if transposed else parameter.shape
        expert = tensors.slices[weight].expert if weight in tensors.slices else None
        layers[name] = Layer(
            name, *position, rows, cols, tensors.dtype(weight), transposed, expert, bits=tensors.stored_bits(weight)
        )
    if not layers:
        raise ModelError(
            f"{tensors.checkpoint.folder} has no linear layers in its blocks ({type(module).__name__}); nothing to quantize."
        )
    return layers


def find_optional(module: nn.Module, tensors: TensorMap) -> dict[str, Layer]:
    """The layers that are quantized only where somebody names them: routers, output head and token embedding, tied or not.

    A head that is tied together with other tensors (its bias, a second head) is none, since it cannot be untied alone; nor is an
    embedding that another module than the head has its weight from.
    """
    layers = _find_routers(module, tensors)
    head, embedding = cast(Any, module).get_output_embeddings(), cast(Any, module).get_input_embeddings()
    if (path := _find_path_outside_blocks(module, head)) is not None and is_linear(head):
        weight = f"{path}.weight"
        stored = weight if tensors.holds(weight) else tensors.tied.get(weight, "")
        if tensors.holds(stored) and (weight not in tensors.tied or set(tensors.tied) == {weight}):
            transposed = not isinstance(head, nn.Linear)
            rows, cols = reversed(head.weight.shape) if transposed else head.weight.shape
            stored_as, bits = tensors.dtype(stored), tensors.stored_bits(stored)
            layers[path] = Layer(path, None, path, rows, cols, stored_as, transposed, role="head", bits=bits)
    if (path := _find_path_outside_blocks(module, embedding)) is not None and isinstance(embedding, nn.Embedding):
        weight = f"{path}.weight"
        sharing = {tied for tied, source in tensors.tied.items() if source == weight}
        stored = weight if tensors.holds(weight) else next(iter(sharing), "")
        if tensors.holds(stored) and weight not in tensors.tied and sharing <= {f"{name}.weight" for name in layers}:
            rows, cols = embedding.weight.shape
            stored_as, bits = tensors.dtype(stored), tensors.stored_bits(stored)
            layers[path] = Layer(path, None, path, rows, cols, stored_as, transposed=False, role="embedding", bits=bits)
    return layers


def _find_routers(module: nn.Module, tensors: TensorMap) -> dict[str, Layer]:
    """The matrices by which mixtures score their experts, each under its router's name; some are linear layers anyway."""
    layers = {}
    for name, part in module.named_modules():
        position = split_name(name)
        if position is not None and is_router(part) and tensors.holds(f"{name}.weight"):
            rows, cols = part.get_parameter("weight").shape
            stored_as, bits = tensors.dtype(f"{name}.weight"), tensors.stored_bits(f"{name}.weight")
            layers[name] = Layer(name, *position, rows, cols, stored_as, transposed=False, role="router", bits=bits)
    return layers


def is_router(module: nn.Module) -> bool:
    """Whether a module multiplies with a matrix of its own and chooses experts by the product."""
    weight = module._parameters.get("weight")
    return weight is not None and weight.ndim == 2 and not is_linear(module) and ROUTER.search(type(module).__name__) is not None


def _find_path_outside_blocks(module: nn.Module, part: Any) -> str | None:
    """The name of a part of `module`, None where it is none or lies in a block."""
    name = next((path for path, other in module.named_modules() if other is part), None)
    return None if name is None or split_name(name) is not None else name


def select_layers(names: Iterable[str], optional: Iterable[str], patterns: str) -> list[str]:
    """The layers that one of these patterns, separated by commas, matches.

    An optional layer is taken only where the last part of its name is spelled out: "*" matches every layer but these.
    """
    parts = [pattern.strip() for pattern in patterns.split(",")]
    spelled = [pattern for pattern in parts if not set("*?[") & set(pattern.rpartition(".")[2])]
    matching = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in parts)]
    return matching + [name for name in optional if any(fnmatch.fnmatchcase(name, pattern) for pattern in spelled)]


def is_linear(module: nn.Module) -> bool:
    """nn.Linear, or transformers' Conv1D, which is the same map stored transposed.

    A subclass that does more than multiply (a router that returns a choice of experts) is none.
    """
    from transformers.pytorch_utils import Conv1D

    if type(module).forward in (nn.Linear.forward, Conv1D.forward):
        return True
    return isinstance(module, nn.Linear) and type(module).__name__ in PLAIN_SUBCLASSES


def split_name(name: str) -> tuple[int, str] | None:
    """Block index and name inside the block: "model.layers.3.mlp.up_proj" to (3, "mlp.up_proj"); None outside of blocks."""
    parts = name.split(".")
    for index, part in enumerate(parts[:-1]):
        if part.isdecimal():
            return int(part), ".".join(parts[index + 1 :])
    return None


def find_block_name(layer: str) -> str:
    """The block of a layer: "model.layers.3.mlp.up_proj" to "model.layers.3"."""
    name_parts = split_name(layer)
    assert name_parts is not None, layer  # layers are found by their place in a block
    return layer.removesuffix(f".{name_parts[1]}")


def tabulate_layers(layers: Iterable[Layer]) -> "pd.DataFrame":
    """One row a layer: name, block (NaN outside of them), matrix, rows, cols, dtype (as stored), stored_bits (a weight),
    parameters."""
    import pandas as pd

    return pd.DataFrame(list_rows(layers))


def list_rows(layers: Iterable[Layer]) -> list[dict[str, Any]]:
    """The rows of `tabulate_layers`, with a block of None outside of them."""
    columns = ("name", "block", "matrix", "rows", "cols", "dtype")
    return [
        {column: getattr(layer, column) for column in columns}
        | {"stored_bits": layer.bits, "parameters": layer.rows * layer.cols}
        for layer in layers
    ]


MAX_NAME_CHARS = 200  # characters of a name that are compared with those there are


def describe_unknown_layer(name: str, names: list[str], optional: Iterable[str] = ()) -> ModelError:
    """What to say about a layer name that does not exist."""
    near = difflib.get_close_matches(name[:MAX_NAME_CHARS], [*names, *optional], n=1, cutoff=0.0)[0]
    return ModelError(f"unknown layer {shorten_value(name)}; did you mean {near!r}? model.layers() lists all {len(names)}.")
