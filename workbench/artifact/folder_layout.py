"""The names inside an artifact, and stored trees as JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from workbench.errors import ArtifactError
from workbench.kernels.formats.declared import shorten_value
from workbench.kernels.packing.packed import Packed

VERSION = 2
READABLE = (1, 2)
# not model.safetensors, in which any transformers would look for ordinary weights, find none, and make up random ones
MODEL, RECIPE, LEDGER, CONFIG = "packed.safetensors", "recipe.json", "ledger.json", "config.json"
MODEL_OF_VERSION_1 = "model.safetensors"
DEEPEST = 32  # formats inside each other; a recipe's tree has a few
FIELDS: dict[str, type] = {
    "format": str,
    "rows": int,
    "cols": int,
    "facts": dict,
    "tensors": dict,
    "shared": dict,
    "children": list,
}
# what runs a model besides its weights; pickles and code are never copied
COPIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
)


def is_artifact(folder: str | Path) -> bool:
    """Whether a folder looks like a saved quantized model: it has a recipe and a ledger."""
    return all((Path(folder) / name).is_file() for name in (RECIPE, LEDGER))


def find_model_file(folder: Path) -> Path:
    """The file of all tensors: packed.safetensors, which was called model.safetensors in version 1."""
    older = folder / MODEL_OF_VERSION_1
    return older if older.is_file() and not (folder / MODEL).is_file() else folder / MODEL


def make_tensor_key(layer: str, path: str, node: Packed, tensor: str) -> str:
    """Name in the file: `layer|path|tensor`, or `shared|key` for what several layers have in common."""
    if tensor in node.shared:
        return f"shared|{node.shared[tensor][0]}"
    return f"{layer}|{path}|{tensor}"


def serialize_tree(layer: str, node: Packed, path: str = "") -> dict[str, Any]:
    """A tree without its tensors' contents: format, shape, facts, where each tensor is, sharing, children."""
    return {
        "format": node.format,
        "rows": node.rows,
        "cols": node.cols,
        "facts": dict(node.facts),
        "tensors": {name: make_tensor_key(layer, path, node, name) for name in node.tensors},
        "shared": {name: list(sharing) for name, sharing in node.shared.items()},
        "children": [serialize_tree(layer, child, f"{path}{index}.") for index, child in enumerate(node.children)],
    }


def deserialize_tree(data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Packed:
    """The inverse of `serialize_tree`, with tensors taken by their names in the file.

    ArtifactError where the document is none, or names tensors that are not there; what formats declare of a tree is another
    question (`declared.find_fault`).
    """
    if fault := find_tree_fault(data, tensors):
        raise ArtifactError(f"a stored matrix {fault}; save the model again.")
    return build_tree(data, tensors)


def build_tree(data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Packed:
    """The tree of a document in which nothing is missing."""
    return Packed(
        format=data["format"],
        rows=data["rows"],
        cols=data["cols"],
        tensors={name: tensors[key] for name, key in data["tensors"].items()},
        facts=data["facts"],
        children=tuple(build_tree(child, tensors) for child in data["children"]),
        shared={name: (key, layers) for name, (key, layers) in data["shared"].items()},
    )


def find_tree_fault(data: Any, tensors: Mapping[str, Tensor], depth: int = 0) -> str | None:
    """What a document lacks to be a tree of these tensors, as a predicate; None where nothing is missing."""
    if not isinstance(data, dict):
        return f"is written as a JSON {type(data).__name__} and must be an object"
    if depth > DEEPEST:
        return f"is nested deeper than {DEEPEST} formats"
    for name, kind in FIELDS.items():
        if type(data.get(name)) is not kind:
            return f"has {name} = {shorten_value(data.get(name))} and must have a value of type {kind.__name__} there"
    for name, key in data["tensors"].items():
        if not isinstance(key, str) or key not in tensors:
            return f"names {shorten_value(key)} as its tensor {name!r}, which the file does not have"
    for name, sharing in data["shared"].items():
        if not _is_sharing(sharing):
            return f"shares tensor {name!r} as {shorten_value(sharing)}; it must be a key and a number of layers"
    return next((fault for child in data["children"] if (fault := find_tree_fault(child, tensors, depth + 1))), None)


def _is_sharing(value: Any) -> bool:
    """Whether this says how a tensor is shared: a key and how many layers pay for it."""
    return isinstance(value, list) and [type(part) for part in value] == [str, int] and value[1] > 0
