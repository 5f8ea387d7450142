"""Reading and checking the files of an artifact: missing, truncated, changed or incompatible files are named in one sentence."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from workbench import json_value
from workbench.artifact import digest
from workbench.artifact.documents import check_ledger, check_recipe
from workbench.artifact.folder_layout import CONFIG, LEDGER, READABLE, RECIPE, find_model_file
from workbench.errors import ArtifactError
from workbench.json_value import JsonValue, shorten_value

MAX_DOCUMENT_BYTES = 1 << 29  # of a document: each of 100,000 experts takes some kilobytes in recipe.json


@dataclass(frozen=True)
class Contents:
    """The two documents of an artifact and all tensors of its model file, checked against each other."""

    recipe: dict[str, Any]
    ledger: dict[str, Any]
    tensors: dict[str, Tensor]


def read(folder: Path) -> Contents:
    """Read a whole artifact; ArtifactError at the first thing that is not as it was saved."""
    _check_present(folder)
    document = read_document(folder / LEDGER)
    ledger = document.value
    if digest.hash_json(ledger) != ledger.get("sha256"):
        raise ArtifactError(f"{folder / LEDGER} was changed after it was saved; save the model again.")
    check_ledger(document)
    for name, fingerprint in ledger["files"].items():
        if not (folder / name).is_file():
            raise ArtifactError(f"{folder} lacks {name}; copy the whole folder again.")
        if digest.hash_file(folder / name) != fingerprint:
            raise ArtifactError(f"{folder / name} was changed after it was saved; copy it again, or save the model again.")
    recipe = read_document(folder / RECIPE)
    check_recipe(recipe, document)
    return Contents(recipe.value, ledger, _read_tensors(find_model_file(folder), ledger))


def _check_present(folder: Path) -> None:
    """Raise ArtifactError unless the folder and its main files are there."""
    if not folder.is_dir():
        raise ArtifactError(f"there is no folder {str(folder)!r}; give one written by `workbench quantize --out` or wb.save.")
    missing = [name for name in (RECIPE, LEDGER, find_model_file(folder).name, CONFIG) if not (folder / name).is_file()]
    if missing == [RECIPE, LEDGER]:
        raise ArtifactError(f"{folder} is not a quantized model (no {RECIPE}); a plain model is opened with wb.open_model.")
    if missing:
        raise ArtifactError(f"{folder} lacks {', '.join(missing)}; copy the whole folder again.")


def read_document(path: Path) -> JsonValue:
    """One document of a version that can be read."""
    value = json_value.read(path, error=ArtifactError, limit=MAX_DOCUMENT_BYTES)
    version = value.get("version", "copy the folder again")
    if type(version.value) is not int or version.value not in READABLE:
        versions = " and ".join(map(str, READABLE))
        raise ArtifactError(
            f"{path} has version {shorten_value(version.value)}, but this workbench reads versions {versions}; save the model "
            "again here."
        )
    return value


def _read_tensors(path: Path, ledger: dict[str, Any]) -> dict[str, Tensor]:
    """Every tensor of the model file; its length, header and each tensor's bytes must be those that were saved."""
    size, saved = path.stat().st_size, ledger["bytes"]
    if size != saved:
        how = "truncated" if size < saved else "not the file that was saved"
        raise ArtifactError(f"{path} has {size:,} bytes of {saved:,}; it is {how}: copy it again.")
    if digest.hash_header(path) != ledger["header"]:
        raise ArtifactError(f"{path} is damaged in its header, the list of tensors; copy it again.")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a dict
    except SafetensorError as error:
        raise ArtifactError(f"{path} is not a safetensors file ({error}); copy it again.") from None
    for name, fingerprint in ledger["tensors"].items():
        if name not in tensors:
            raise ArtifactError(f"{path} lacks tensor {name!r}; save the model again.")
        if digest.hash_tensor(tensors[name]) != fingerprint:
            raise ArtifactError(f"{path} is damaged in tensor {name!r}; copy it again.")
    return tensors
