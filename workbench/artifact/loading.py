"""load: a saved folder to a model that runs on its packed layers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from workbench.artifact import reading
from workbench.artifact.layout import tree_from_dict
from workbench.artifact.packed_model import PackedModel
from workbench.bits import BitLedger
from workbench.errors import ArtifactError
from workbench.kernels.linear import PackedLinear
from workbench.kernels.mode import Cache
from workbench.kernels.packed import Packed
from workbench.kernels.packed_module import PackedEmbedding, PackedModule
from workbench.models import architecture
from workbench.models.layers import is_router
from workbench.models.streaming import keep_stored_types, streams
from workbench.quantized import QuantizedLayer, QuantizedModel
from workbench.recipe import LayerPlan, Recipe

HALF = 2  # bytes of a weight in half precision: what the layers took before they were packed


def load(folder: str | Path, *, cache: Cache = "decoded") -> PackedModel:
    """Load what `save` wrote, check every byte of it, and build the model around its packed layers.

    `cache` is that of `PackedLinear`: "decoded" (the default) keeps each layer's float32 matrix once the reference backend
    has used it, "none" holds nothing but what is stored. Raises ArtifactError saying what is missing or damaged.
    """
    place = Path(folder).expanduser().absolute()
    contents = reading.read(place)
    quantized = quantized_from(contents)
    packed_names = {key for entry in contents.recipe["layers"].values() for key in tensor_names(entry["packed"])}
    others = {name: tensor for name, tensor in contents.tensors.items() if name not in packed_names}
    module = build(place, {name: layer.packed for name, layer in quantized.layers.items()}, others, cache)
    file_ledger = BitLedger.from_dict(contents.ledger["model"])
    return PackedModel(place, quantized, module, file_ledger, contents.recipe["fingerprint"])


def quantized_in(folder: Path) -> QuantizedModel:
    """What was saved in a folder, checked as `load` does, without a module to run it: for a twin of an opened model."""
    return quantized_from(reading.read(folder))


def quantized_from(contents: reading.Contents) -> QuantizedModel:
    """The quantized model as it was when it was saved."""
    recipe = contents.recipe
    packed_names = {key for entry in recipe["layers"].values() for key in tensor_names(entry["packed"])}
    return QuantizedModel(
        source=recipe["source"],
        layers={name: layer_from(name, entry, contents) for name, entry in recipe["layers"].items()},
        plan=LayerPlan.from_dict(recipe["plan"]),
        calibration=recipe["calibration"],
        seconds=recipe["seconds"],
        changed_tensors={name: contents.tensors[name] for name in recipe.get("changed_tensors", ())},
        fused=recipe.get("fused", {}),
        shapes={name: tuple(tensor.shape) for name, tensor in contents.tensors.items() if name not in packed_names},
    )


def layer_from(name: str, entry: Mapping[str, Any], contents: reading.Contents) -> QuantizedLayer:
    """One layer's result, as it was when it was saved."""
    return QuantizedLayer(
        name=name,
        packed=tree_from_dict(entry["packed"], contents.tensors),
        recipe=Recipe.from_dict(entry["recipe"]),
        ledger=BitLedger.from_dict(contents.ledger["layers"][name]),
        relative_error=entry["relative_error"],
        output_error=entry["output_error"],
        seconds=entry["seconds"],
        edits=tuple(entry.get("edits", ())),
    )


def tensor_names(tree: Mapping[str, Any]) -> set[str]:
    """Names in the file of all tensors of a tree."""
    return set(tree["tensors"].values()).union(*(tensor_names(child) for child in tree["children"]))


def build(folder: Path, layers: Mapping[str, Packed], others: Mapping[str, Tensor], cache: Cache) -> nn.Module:
    """The model's module, float32 and in eval mode, with packed layers; the replaced weights are never allocated."""
    module: Any = architecture.empty_module(architecture.read_config(folder, packed=True))
    replace_layers(module, layers, cache)
    size = sum(tensor.nbytes for tensor in others.values()) + HALF * sum(packed.rows * packed.cols for packed in layers.values())
    architecture.fill(module, keep_stored_types(module, others.items()) if streams(size) else others.items())
    empty = sorted(architecture.empty_parameters(module))
    if empty:
        raise ArtifactError(f"{folder} lacks {len(empty)} tensors of its architecture, first {empty[0]!r}; save the model again.")
    generation = architecture.read_generation_config(folder)
    if generation is not None:
        module.generation_config = generation
    return module


def replace_layers(module: nn.Module, layers: Mapping[str, Packed], cache: Cache) -> None:
    """Put packed layers in the place of linear ones and of embeddings; a head that is tied to such an embedding runs on it."""
    tied: dict[str, str] = getattr(module, "all_tied_weights_keys", {})
    for weight, source in [pair for pair in tied.items() if pair[1].removesuffix(".weight") in layers]:
        if weight.removesuffix(".weight") not in layers and shares(module, weight, source):
            put_packed(module, weight.removesuffix(".weight"), layers[source.removesuffix(".weight")], cache)
            del tied[weight]  # there is no parameter left to tie
    for name, packed in layers.items():
        put_packed(module, name, packed, cache)


def shares(module: nn.Module, weight: str, source: str) -> bool:
    """Whether tied parameters are one, or will be once the module is filled."""
    return module.get_parameter(weight) is module.get_parameter(source) or module.get_parameter(weight).is_meta


def put_packed(module: nn.Module, name: str, packed: Packed, cache: Cache) -> None:
    """Put the stored form of one layer into its place."""
    part = module.get_submodule(name)
    if is_router(part):
        module.set_submodule(name, PackedModule.instead_of(part, packed, cache=cache))
    elif isinstance(part, nn.Embedding):
        module.set_submodule(name, PackedEmbedding.instead_of(part, packed, cache=cache))
    else:
        module.set_submodule(name, PackedLinear.instead_of(part, packed, cache=cache))
