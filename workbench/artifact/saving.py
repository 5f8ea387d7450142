"""Saving a quantized model to a folder, completely or not at all, with a ledger that adds up to the file size."""

import json
import shutil
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from workbench.artifact import digest
from workbench.artifact.declaration import build_config_document
from workbench.artifact.folder_layout import (
    CONFIG,
    COPIED,
    LEDGER,
    MODEL,
    RECIPE,
    VERSION,
    is_artifact,
    make_tensor_key,
    serialize_tree,
)
from workbench.artifact.tensor_file import write_tensors
from workbench.atomic import write_folder
from workbench.bits import BitEntry, BitLedger
from workbench.errors import ArtifactError
from workbench.kernels.packing.packed import Packed, build_ledger, count_stored_bits
from workbench.models import ModelHandle, architecture, open_model
from workbench.outputs import check_folder
from workbench.quantized import QuantizedLayer, QuantizedModel


def save(quantized: QuantizedModel, folder: str | Path, model: ModelHandle | None = None) -> Path:
    """Write a quantized model with everything needed to run it; a saved model that is already there is replaced in one step.

    Args:
        quantized: What `wb.quantize_model` made.
        folder: Where to; it is made where it is missing.
        model: The model that was quantized; opened again from its source when absent.

    Returns:
        The folder.

    Raises:
        OutputError: When the folder holds other things or cannot be written.
        ArtifactError: When the layers do not belong to the model.

    Example:
        >>> import tempfile
        >>> import workbench as wb
        >>> small = wb.quantize_model(wb.open_model("builtin"), wb.recipe("rtn", bits=4), layers="*.0.mlp.down_proj")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     saved = wb.save(small, f"{folder}/small")
        ...     (saved / "packed.safetensors").is_file()
        True
    """
    target = check_folder(folder, is_artifact)
    model = model or open_model(quantized.source)
    check_belongs(quantized, model)
    layers = _recount_sharing(quantized.layers)
    tensors, entries = _collect_packed_tensors(layers)
    others = _apply_changes(model.other_tensors(layers), quantized, model)
    with write_folder(target, is_artifact) as partial:
        write_tensors(partial / MODEL, tensors | others)
        for name in COPIED:
            if (model.folder / name).is_file():
                shutil.copyfile(model.folder / name, partial / name)
        apart = _is_untied(model, [*others, *layers])
        weights = sum(layer.ledger.weights for layer in layers.values()) + sum(tensor.numel() for tensor in others.values())
        config = build_config_document(
            model.folder / CONFIG, layers, model.config.architectures or (), apart=apart, weights=weights
        )
        (partial / CONFIG).write_text(json.dumps(config, indent=1) + "\n")  # transformers writes infinities into some
        _write_json(partial / RECIPE, _build_recipe_document(quantized, layers, model))
        book = _build_file_ledger(partial / MODEL, layers, entries, others, quantized.changed_tensors)
        _write_json(partial / LEDGER, build_ledger_document(partial, layers, tensors | others, book))
    return target


def check_belongs(quantized: QuantizedModel, model: ModelHandle) -> None:
    """Raise ArtifactError when the layers were made from another model; ModelError for a layer it does not have."""
    if not quantized.layers:
        raise ArtifactError(f"no layer of {quantized.source!r} was quantized; check the patterns of the plan.")
    if quantized.source != model.source:
        raise ArtifactError(f"the layers were quantized from {quantized.source!r}, not from {model.source!r}; give that model.")
    for name, layer in quantized.layers.items():
        there, shape = model.layer(name), [layer.packed.rows, layer.packed.cols]
        if shape != [there.rows, there.cols]:
            raise ArtifactError(f"layer {name!r} is {[there.rows, there.cols]} in the model, but {shape} as quantized.")


def _apply_changes(others: Mapping[str, Tensor], quantized: QuantizedModel, model: ModelHandle) -> dict[str, Tensor]:
    """The model's other tensors, some as quantization changed them; ArtifactError unless each keeps its type and shape.

    A tensor that was tied to another and now differs from it is stored beside it.
    """
    result = dict(others)
    for name, new in quantized.changed_tensors.items():
        stored = others[name] if name in others else model.tied_tensor(name)
        if stored is None:
            raise ArtifactError(f"{model.source!r} has no tensor {name!r} outside its layers; quantize the model again.")
        if (new.dtype, new.shape) != (stored.dtype, stored.shape):
            there, new_shape = f"{stored.dtype} {list(stored.shape)}", f"{new.dtype} {list(new.shape)}"
            raise ArtifactError(f"tensor {name!r} is {there} in the model, but {new_shape} as changed; store it as in the model.")
        result[name] = new.detach().cpu().contiguous().clone()
    return result


def _is_untied(model: ModelHandle, stored: Iterable[str]) -> bool:
    """Whether everything that the model ties to another tensor is stored beside it, as a tensor or as a layer."""
    module: Any = architecture.build_split_module(model.config)
    tied = {name.removesuffix(".weight") for name in module.all_tied_weights_keys}
    return bool(tied) and tied <= {name.removesuffix(".weight") for name in stored}


def _recount_sharing(layers: Mapping[str, QuantizedLayer]) -> dict[str, QuantizedLayer]:
    """The layers with shared tensors paid by exactly those layers that are saved here."""
    owners = Counter(key for layer in layers.values() for _, node in layer.packed.walk() for key, _ in node.shared.values())

    def recount(node: Packed) -> Packed:
        shared = {name: (key, owners[key]) for name, (key, _) in node.shared.items()}
        return replace(node, shared=shared, children=tuple(recount(child) for child in node.children))

    trees = {name: recount(layer.packed) for name, layer in layers.items()}
    return {
        name: replace(layer, packed=trees[name], ledger=build_ledger(trees[name], layer.nominal_bits))
        for name, layer in layers.items()
    }


def _collect_packed_tensors(layers: Mapping[str, QuantizedLayer]) -> tuple[dict[str, Tensor], list[BitEntry]]:
    """All stored tensors of the layers by their names in the file, shared ones once, and what each costs and is for."""
    tensors: dict[str, Tensor] = {}
    entries: list[BitEntry] = []
    for layer in layers.values():
        items = iter(layer.ledger.entries)
        for path, node in layer.packed.walk():
            for name, tensor in node.tensors.items():
                key, item = make_tensor_key(layer.name, path, node, name), next(items)
                if key in tensors:
                    if digest.hash_tensor(tensors[key]) != digest.hash_tensor(tensor):
                        raise ArtifactError(f"layer {layer.name!r} shares {key!r} with others but holds another tensor.")
                    continue
                tensors[key] = tensor.detach().cpu().contiguous()
                entries.append(replace(item, bits=count_stored_bits(tensor), shared_by=1))
    return tensors, entries


def _build_recipe_document(quantized: QuantizedModel, layers: Mapping[str, QuantizedLayer], model: ModelHandle) -> dict[str, Any]:
    """What was done to which model, and how each layer's tensors form a stored matrix."""
    return {
        "version": VERSION,
        "source": quantized.source,
        "fingerprint": model.fingerprint,
        "plan": quantized.plan.to_dict(),
        "calibration": dict(quantized.calibration),
        "seconds": quantized.seconds,
        "changed_tensors": list(quantized.changed_tensors),
        "fused": dict(quantized.fused),
        "layers": {
            name: {
                "recipe": layer.recipe.to_dict(),
                "relative_error": layer.relative_error,
                "output_error": layer.output_error,
                "seconds": layer.seconds,
                "edits": list(layer.edits),
                "packed": serialize_tree(name, layer.packed),
            }
            for name, layer in layers.items()
        },
    }


def _build_file_ledger(
    file: Path,
    layers: Mapping[str, QuantizedLayer],
    entries: Sequence[BitEntry],
    others: Mapping[str, Tensor],
    changed: Collection[str],
) -> BitLedger:
    """The ledger of packed.safetensors over all weights of the model: its total is the file's size in bits, exactly.

    `changed` names those of the other tensors whose values are not the model's own.
    """
    book: dict[str, BitEntry] = {}
    for entry in entries:
        so_far = book[entry.item].bits if entry.item in book else 0
        book[entry.item] = replace(entry, bits=so_far + entry.bits)
    values = {name: "new values" if name in changed else "not quantized" for name in others}
    others_ledger = [
        BitEntry(name, count_stored_bits(t), f"{values[name]}, {t.dtype} as in the model") for name, t in others.items()
    ]
    header = BitEntry("safetensors header", 8 * len(digest.read_header(file)), "names, types and shapes of all tensors")
    quantized = BitLedger.merge(layer.ledger for layer in layers.values())
    weights = quantized.weights + sum(tensor.numel() for tensor in others.values())
    nominal = quantized.nominal_bits * quantized.weights + sum(entry.bits for entry in others_ledger)
    return BitLedger((*book.values(), *others_ledger, header), weights, nominal / weights)


def build_ledger_document(
    folder: Path, layers: Mapping[str, QuantizedLayer], tensors: Mapping[str, Tensor], book: BitLedger
) -> dict[str, Any]:
    """What everything costs, and the fingerprints that a loader checks."""
    document = {
        "version": VERSION,
        "bytes": (folder / MODEL).stat().st_size,
        "model": book.to_dict(),
        "quantized": BitLedger.merge(layer.ledger for layer in layers.values()).to_dict(),
        "layers": {name: layer.ledger.to_dict() for name, layer in layers.items()},
        "header": digest.hash_header(folder / MODEL),
        "tensors": {name: digest.hash_tensor(tensor) for name, tensor in tensors.items()},
        "files": {path.name: digest.hash_file(path) for path in sorted(folder.iterdir()) if path.name != MODEL},
    }
    return {**document, "sha256": digest.hash_json(document)}


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Readable JSON; NaN and infinity are a bug, since JSON has neither."""
    path.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
