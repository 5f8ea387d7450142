"""Layers of a model as plain facts, stored by what its folder says: listed again, they need neither torch nor transformers."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelError, WorkbenchWarning
from workbench.models.builtin import BUILTIN, BUILTIN_FOLDER
from workbench.models.hub_cache import find_snapshot
from workbench.store import Store, compute_key

if TYPE_CHECKING:
    from workbench.models.handle import ModelHandle

LISTING_VERSION = 2  # of the facts
LIBRARIES = ("transformers", "torch", "safetensors")  # they decide which layers a folder has
LENGTH_BYTES = 8  # at the start of a safetensors file: how long its header is
MAX_HEADER_BYTES = 100 << 20  # as safetensors allows


def list_layers(source: str, store: Store, adapter: Path | None = None) -> dict[str, Any]:
    """What `workbench layers` says about the model `source`, from the store where its folder is as it was.

    A model that cannot be opened, or only with a warning, is opened each time: what there is to say is said again.

    Returns:
        JSON values: `layers` (one row a layer: name, block, matrix, rows, cols, dtype, stored_bits, parameters), `blocks` (their
        number),
        `optional` (names), `routers` (names), `sizes` ([rows, cols] of each optional layer), `tied_head` and `embedding` (names
        or None), and `embedding_bytes`.
    """
    key = None if adapter is not None else _compute_folder_key(source)
    entry = None if key is None else store.get(key)
    if entry is not None:
        return dict(entry.facts)
    from workbench.models import open_model

    with _note_warnings() as noted:
        facts = _collect_facts(open_model(source, adapter=adapter))
    if key is not None and not any(issubclass(warning.category, WorkbenchWarning) for warning in noted):
        store.put(key, {}, facts, kind="layers", what=source)
    return facts


@contextmanager
def _note_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """What is warned of inside, which is warned of outside afterwards, also where an error ends it."""
    noted: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            yield noted
    finally:
        for warning in noted:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _collect_facts(handle: "ModelHandle") -> dict[str, Any]:
    """The facts of an opened model."""
    optional, tied = handle.optional_names, handle.tied_head is not None
    return {
        "layers": handle.layer_rows(),
        "blocks": len(handle.block_names),
        "optional": optional,
        "routers": handle.router_names,
        "sizes": {name: [handle.layer(name).rows, handle.layer(name).cols] for name in optional},
        "tied_head": handle.tied_head,
        "embedding": handle.embedding_name,
        "embedding_bytes": handle.tensor(f"{handle.embedding_name}.weight").nbytes if tied else 0,
    }


def _compute_folder_key(source: str) -> str | None:
    """The key of a folder's facts: its configuration, the headers of its weights, and size and time of every file.

    None where there is no such folder to look at, as for a hub id, which may have changed on the hub.
    """
    try:
        folder = BUILTIN_FOLDER if source == BUILTIN else find_snapshot(Path(source).expanduser())
        files = sorted(path for path in folder.iterdir() if path.suffix != ".py" and not path.is_dir())
        stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
        contents = [path.read_bytes() for path in files if path.name in ("config.json", "model.safetensors.index.json")]
        headers = [_read_header_bytes(path) for path in files if path.suffix == ".safetensors"]
    except (OSError, RuntimeError, ValueError, ModelError):  # whoever opens it says what is wrong
        return None
    libraries = [version(library) for library in LIBRARIES]
    return compute_key("layers", LISTING_VERSION, libraries, str(folder.resolve()), stats, *contents, *headers)


def _read_header_bytes(file: Path) -> bytes:
    """The header of a safetensors file, not checked: a damaged one has no stored facts."""
    with file.open("rb") as stream:
        length = stream.read(LENGTH_BYTES)
        return length + stream.read(min(int.from_bytes(length, "little"), MAX_HEADER_BYTES))
