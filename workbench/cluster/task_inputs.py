"""What tasks read: a model by its source and fingerprint, texts and statistics by their content key in the store.

A worker keeps what it has opened, so that its next task finds it in memory.
"""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import ClusterError
from workbench.input_sums import LayerStats
from workbench.models import open_model
from workbench.models.text import Text
from workbench.store import Entry, Store, compute_key

if TYPE_CHECKING:
    from workbench.models import ModelHandle

Description = dict[str, Any]


def describe_model(model: "ModelHandle") -> Description:
    """A model as JSON values, from which another process opens it.

    Args:
        model: A model from `open_model`.

    Raises:
        ClusterError: For a model that is only in this process: opened from memory, or fused.
    """
    if model.in_memory or model.is_rewritten:
        kind = "was opened from memory" if model.in_memory else "is fused"
        raise ClusterError(f"{model.source!r} {kind}, so that no other process can open it; open its folder, or use no workers.")
    source = str(Path(model.source).expanduser().absolute()) if Path(model.source).expanduser().is_dir() else model.source
    return {"source": source, "fingerprint": model.fingerprint}


def open_described_model(facts: Mapping[str, Any]) -> "ModelHandle":
    """The model of `describe_model`, opened once in a process; ClusterError where this machine has another one there."""
    model = _open_once(facts["source"])
    if model.fingerprint != facts["fingerprint"]:
        raise ClusterError(
            f"{facts['source']!r} has other weights on the worker (fingerprint {model.fingerprint}, and {facts['fingerprint']} "
            f"where the run was started); put the same files there."
        )
    return model


@lru_cache(maxsize=1)
def _open_once(source: str) -> "ModelHandle":
    return open_model(source)


def share_text(text: Text, store: Store) -> str:
    """Put a text into the store; returns its key."""
    key = compute_key("shared text", text.name, text.fingerprint)
    if store.get(key) is None:
        store.put(key, {}, {"name": text.name, "documents": list(text.documents)}, kind="text", what=text.name)
    return key


def read_shared_text(key: str, store: Store) -> Text:
    """The text of a key."""
    facts = _read_entry(key, store).facts
    return Text(facts["name"], tuple(facts["documents"]))


def share_stats(stats: Mapping[str, LayerStats], layers: Iterable[str], store: Store) -> dict[str, str]:
    """Put the statistics of these layers into the store, those that layers share once; returns the key of each layer's."""
    keys: dict[int, str] = {}
    by_layer = {name: stats[name] for name in layers if name in stats}
    size = sum(layer.moment.nbytes for layer in {id(layer): layer for layer in by_layer.values()}.values())
    if size > store.limit_bytes / 2:  # results have to find room, too
        raise ClusterError(
            f"the statistics of {len(by_layer)} layers take {size / 1e9:.1f} GB, more than half of what the cache folder may "
            f"hold ({store.limit_bytes / 1e9:.1f} GB); take fewer layers at a time, or a larger wb.Store(limit_bytes=...)."
        )
    for name, layer in by_layer.items():
        if id(layer) not in keys:
            tensors = {"moment": layer.moment, "mean": layer.mean, "absmax": layer.absmax}
            key = compute_key("shared statistics", *tensors.values(), layer.tokens)
            if not store.path(key).exists():
                store.put(key, tensors, {"tokens": layer.tokens}, kind="statistics", what=f"inputs of {name}")
            keys[id(layer)] = key
    return {name: keys[id(layer)] for name, layer in by_layer.items()}


def read_shared_stats(layer: str, key: str | None, store: Store) -> dict[str, LayerStats] | None:
    """The statistics of one layer by its name, or None where the key is."""
    if key is None:
        return None
    entry = _read_entry(key, store)
    return {layer: LayerStats(**entry.tensors, tokens=entry.facts["tokens"])}


def _read_entry(key: str, store: Store) -> Entry:
    """An entry that whoever started the run has put into the store; ClusterError where it is not there."""
    entry = store.get(key)
    if entry is None:
        raise ClusterError(
            f"the worker finds no input {key[:8]}… in the cache folder {store.folder}; set WORKBENCH_CACHE to a folder "
            f"that all machines share under one name, before the run is started."
        )
    return entry
