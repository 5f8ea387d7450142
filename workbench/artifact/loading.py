"""Loading a saved folder as a model that runs on its packed layers."""

from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from workbench.artifact import reading
from workbench.artifact.folder_layout import build_tree, find_model_file, find_tree_fault
from workbench.artifact.packed_model import PackedModel
from workbench.bits import BitLedger
from workbench.errors import ArtifactError
from workbench.kernels.formats.declared import find_fault
from workbench.kernels.kernel_mode import Cache
from workbench.kernels.matmul.packed_linear import PackedLinear, read_matrix_shape
from workbench.kernels.matmul.packed_module import PackedEmbedding, PackedModule
from workbench.kernels.packing.packed import Packed
from workbench.models import architecture
from workbench.models.layers import is_linear, is_router
from workbench.models.streaming import keep_stored_types
from workbench.nonfinite import count_nonfinite
from workbench.quantized import QuantizedLayer, QuantizedModel
from workbench.recipe import LayerPlan, Recipe

ShapeOf = Callable[[str], tuple[int, int] | None]  # of a layer


def load(folder: str | Path, *, cache: Cache = "decoded") -> PackedModel:
    """Load what `save` wrote, check every byte of it, and build the model around its packed layers.

    Args:
        folder: A folder that `wb.save` or `workbench quantize` wrote.
        cache: "decoded" keeps each layer's float32 matrix once the reference backend has used it, "none" holds nothing but what
            is stored.

    Returns:
        A model that reads and writes text on its packed layers.

    Raises:
        ArtifactError: Saying what is missing or damaged.

    Example:
        >>> import tempfile
        >>> import workbench as wb
        >>> model = wb.open_model("builtin")
        >>> small = wb.quantize_model(model, wb.recipe("rtn", bits=4), layers="*.0.mlp.down_proj")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     packed = wb.load(wb.save(small, f"{folder}/small", model))
        >>> list(packed.quantized.layers)
        ['model.layers.0.mlp.down_proj']
    """
    path = Path(folder).expanduser().absolute()
    contents = reading.read(path)
    module = architecture.build_split_module(architecture.read_config(path, packed=True))
    quantized = _build_quantized_model(contents, path, partial(find_layer_shape, module))
    others = {name: contents.tensors[name] for name in quantized.shapes}
    _check_others(path, module, quantized.layers, others)
    fill(path, module, {name: layer.packed for name, layer in quantized.layers.items()}, others, cache)
    file_ledger = BitLedger.from_dict(contents.ledger["model"])
    return PackedModel(path, quantized, module, file_ledger, contents.recipe["fingerprint"])


def _accept_any_shape(_name: str) -> None:
    """Nothing is known of the shapes that layers must have."""


def read_quantized_model(folder: Path, shape_of: ShapeOf = _accept_any_shape) -> QuantizedModel:
    """What was saved in a folder, checked as `load` does, without a module to run it: for a twin of an opened model.

    `shape_of` gives the shape that a layer must have, or None where that is not known.
    """
    return _build_quantized_model(reading.read(folder), folder, shape_of)


def _build_quantized_model(contents: reading.Contents, folder: Path, shape_of: ShapeOf) -> QuantizedModel:
    """The quantized model as it was when it was saved."""
    recipe = contents.recipe
    layers = {name: _build_layer(name, entry, contents, folder, shape_of) for name, entry in recipe["layers"].items()}
    packed_names = {key for entry in recipe["layers"].values() for key in _list_tensor_names(entry["packed"])}
    return QuantizedModel(
        source=recipe["source"],
        layers=layers,
        plan=LayerPlan.from_dict(recipe["plan"]),
        calibration=recipe["calibration"],
        seconds=recipe["seconds"],
        changed_tensors={name: contents.tensors[name] for name in recipe.get("changed_tensors", ())},
        fused=recipe.get("fused", {}),
        shapes={name: tuple(tensor.shape) for name, tensor in contents.tensors.items() if name not in packed_names},
    )


def _build_checked_tree(name: str, tree: Any, contents: reading.Contents, folder: Path, shape_of: ShapeOf) -> Packed:
    """A layer's stored matrix; ArtifactError where a tensor or fact is not what its formats declare."""
    fault = find_tree_fault(tree, contents.tensors)
    if fault is None:
        packed = build_tree(tree, contents.tensors)
        fault = find_fault(packed, shape_of(name))
    if fault is not None:
        raise ArtifactError(f"{find_model_file(folder)} cannot be read: layer {name!r} {fault}; save the model again.")
    return packed


def _build_layer(
    name: str, entry: Mapping[str, Any], contents: reading.Contents, folder: Path, shape_of: ShapeOf
) -> QuantizedLayer:
    """One layer's result, as it was when it was saved."""
    return QuantizedLayer(
        name=name,
        packed=_build_checked_tree(name, entry["packed"], contents, folder, shape_of),
        recipe=Recipe.from_dict(entry["recipe"]),
        ledger=BitLedger.from_dict(contents.ledger["layers"][name]),
        relative_error=entry["relative_error"],
        output_error=entry["output_error"],
        seconds=entry["seconds"],
        edits=tuple(entry.get("edits", ())),
    )


def _list_tensor_names(tree: Mapping[str, Any]) -> set[str]:
    """Names in the file of all tensors of a tree."""
    return set(tree["tensors"].values()).union(*(_list_tensor_names(child) for child in tree["children"]))


def find_layer_shape(module: nn.Module, name: str) -> tuple[int, int]:
    """The shape that a layer has in a module; ArtifactError where it has no such layer."""
    try:
        part = module.get_submodule(name)
    except AttributeError:
        part = module
    if is_router(part) or isinstance(part, nn.Embedding):
        rows, cols = part.get_parameter("weight").shape
        return rows, cols
    if not is_linear(part):
        raise ArtifactError(f"layer {name!r} is saved, but the model of its config.json has no such layer; save the model again.")
    return read_matrix_shape(part)


def _check_others(folder: Path, module: nn.Module, layers: Collection[str], others: Mapping[str, Tensor]) -> None:
    """Raise ArtifactError where a tensor beside the layers is none of the module's, has another shape, or is not finite."""
    file, replaced = find_model_file(folder), {f"{name}.weight" for name in layers}
    expected = dict(chain(module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False)))
    for name, tensor in others.items():
        if name in replaced or name not in expected:
            raise ArtifactError(f"{file} holds a tensor {name!r}, which its architecture does not have; save the model again.")
        shape, there = list(tensor.shape), expected[name]
        if shape != list(there.shape) or tensor.is_floating_point() != there.is_floating_point():
            stored_as = f"{there.dtype} {list(there.shape)}"
            raise ArtifactError(
                f"{file} holds {name!r} as {tensor.dtype} {shape}, which must be {stored_as}; save the model again."
            )
        if tensor.is_floating_point() and (bad := count_nonfinite(tensor)):
            raise ArtifactError(
                f"{file} holds {name!r} with {bad:,} of {tensor.numel():,} values that are NaN or infinite; save the model again."
            )


def fill(folder: Path, module: Any, layers: Mapping[str, Packed], others: Mapping[str, Tensor], cache: Cache) -> None:
    """Put packed layers and all other tensors into an empty module; the replaced weights are never allocated."""
    replace_layers(module, layers, cache)
    architecture.fill(module, keep_stored_types(module, others.items()))
    empty = sorted(architecture.find_empty_parameters(module))
    if empty:
        raise ArtifactError(f"{folder} lacks {len(empty)} tensors of its architecture, first {empty[0]!r}; save the model again.")
    architecture.set_generation(module, folder)


def replace_layers(module: nn.Module, layers: Mapping[str, Packed], cache: Cache) -> None:
    """Put packed layers in the place of linear ones and of embeddings; a head that is tied to such an embedding runs on it."""
    tied: dict[str, str] = getattr(module, "all_tied_weights_keys", {})
    for weight, source in [pair for pair in tied.items() if pair[1].removesuffix(".weight") in layers]:
        if weight.removesuffix(".weight") not in layers and _are_shared(module, weight, source):
            _replace_layer(module, weight.removesuffix(".weight"), layers[source.removesuffix(".weight")], cache)
            del tied[weight]  # there is no parameter left to tie
    for name, packed in layers.items():
        _replace_layer(module, name, packed, cache)


def _are_shared(module: nn.Module, weight: str, source: str) -> bool:
    """Whether tied parameters are one, or will be once the module is filled."""
    return module.get_parameter(weight) is module.get_parameter(source) or module.get_parameter(weight).is_meta


def _replace_layer(module: nn.Module, name: str, packed: Packed, cache: Cache) -> None:
    """Put the stored form of one layer into its place."""
    part = module.get_submodule(name)
    if is_router(part):
        module.set_submodule(name, PackedModule.instead_of(part, packed, cache=cache))
    elif isinstance(part, nn.Embedding):
        module.set_submodule(name, PackedEmbedding.instead_of(part, packed, cache=cache))
    else:
        module.set_submodule(name, PackedLinear.instead_of(part, packed, cache=cache))
