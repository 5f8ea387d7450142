"""Store: results on disk under the hash of what they were made from, and a history of runs. Safe among many processes.

An entry is one safetensors file with JSON facts in its header; pickles are neither written nor read. Every write goes to
a file of its own and is then renamed, so a reader sees a whole entry or none.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs
import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor

from workbench.errors import WorkbenchError

VERSION = 1
LIMIT_BYTES = 4 << 30

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """What was stored under one key: tensors by name and JSON facts."""

    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Held:
    """An entry's file or a model's folder: its bytes and when it was last used (nanoseconds)."""

    path: Path
    size: int
    used: int


def key(*parts: Any) -> str:
    """The sha256 of the parts' content as 64 hex digits: JSON values, bytes and tensors (type, shape and bytes)."""
    digest = hashlib.sha256(f"workbench store {VERSION}".encode())
    for part in parts:
        for piece in content(part):
            # the length keeps ("ab", "c") and ("a", "bc") apart
            digest.update(len(piece).to_bytes(8, "little") + piece)
    return digest.hexdigest()


def content(part: Any) -> list[bytes]:
    """The bytes of one part of a key, each kind marked so that equal bytes of different kinds differ."""
    if isinstance(part, Tensor):
        plain = part.detach().cpu().contiguous()
        return [f"tensor {plain.dtype} {tuple(plain.shape)}".encode(), plain.reshape(-1).view(torch.uint8).numpy().tobytes()]
    if isinstance(part, bytes):
        return [b"bytes", part]
    try:
        return [b"json", json.dumps(part, sort_keys=True, allow_nan=False).encode()]
    except (TypeError, ValueError):
        raise WorkbenchError(f"a {type(part).__name__} cannot be part of a key; use JSON values, bytes or tensors.") from None


class Store:
    """A folder of entries and runs; the oldest unused entries go when it grows past `limit_bytes`.

    The folder is `folder`, else the environment variable WORKBENCH_CACHE, else the user's cache folder.
    """

    def __init__(self, folder: str | Path | None = None, *, limit_bytes: int = LIMIT_BYTES) -> None:
        chosen = folder or os.environ.get("WORKBENCH_CACHE") or platformdirs.user_cache_path("quantization-workbench")
        self.folder, self.limit_bytes = Path(chosen), limit_bytes

    def get(self, key: str) -> Entry | None:
        """The entry of `key`, or None; a damaged entry is removed, logged and counts as missing."""
        path = self.path(key)
        try:
            # one read of the whole file: safe_open opens it by name a second time, when it may have been replaced
            data = path.read_bytes()
            os.utime(path)  # read just now: pruned last
            return Entry(from_bytes(data), facts_in(data))
        except FileNotFoundError:
            return None
        except (SafetensorError, ValueError, KeyError) as error:
            log.warning("the stored entry %s is damaged (%s); it is made again", path, error)
            path.unlink(missing_ok=True)
            return None

    def put(self, key: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any] | None = None) -> None:
        """Store tensors and facts under `key`, replacing what was there, and prune."""
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        write(self.path(key), to_bytes(plain, {"facts": json.dumps(dict(facts or {}))}))
        self.prune(keep=key)

    def prune(self, keep: str = "") -> int:
        """Remove the entries and models that were unused for longest until the rest fits; returns the bytes removed."""
        held = sorted(self.held(), key=lambda item: item.used)
        excess = sum(item.size for item in held) - self.limit_bytes
        removed = 0
        for item in held:
            if removed >= excess:
                break
            if item.path.stem != keep:
                shutil.rmtree(item.path, ignore_errors=True) if item.path.is_dir() else item.path.unlink(missing_ok=True)
                removed += item.size
        return removed

    def held(self) -> list["Held"]:
        """Every entry and every saved model with its size and time of last use."""
        found = []
        for path in (*(self.folder / "entries").glob("*/*.safetensors"), *(self.folder / "models").glob("*")):
            try:
                files = list(path.iterdir()) if path.is_dir() else [path]
                found.append(Held(path, sum(file.stat().st_size for file in files), path.stat().st_mtime_ns))
            except FileNotFoundError:  # another process has just pruned it
                continue
        return found

    def record(self, run: Mapping[str, Any]) -> None:
        """Add one run (JSON values) to the history, with the time it was recorded."""
        facts = {"time": time.time(), **run}
        name = f"{time.time_ns():020d}-{os.getpid()}.json"
        write(self.folder / "runs" / name, json.dumps(facts, indent=2, allow_nan=False).encode())

    def runs(self) -> list[dict[str, Any]]:
        """All recorded runs, oldest first."""
        return [json.loads(path.read_bytes()) for path in sorted((self.folder / "runs").glob("*.json"))]

    def model(self, key: str) -> Path:
        """The folder of a whole saved model (see `artifact.save`); asking for one that is there counts as using it."""
        folder = self.folder / "models" / key
        if folder.is_dir():
            os.utime(folder)
        return folder

    def path(self, key: str) -> Path:
        """The file of one key, in one of 256 folders."""
        return self.folder / "entries" / key[:2] / f"{key}.safetensors"


def facts_in(data: bytes) -> dict[str, Any]:
    """The JSON facts in the header of an entry: a length of 8 bytes, then JSON with our facts in its metadata."""
    length = int.from_bytes(data[:8], "little")
    return json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["facts"])


def write(path: Path, data: bytes) -> None:
    """Write a whole file or nothing: to a temporary neighbour, then renamed over `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
