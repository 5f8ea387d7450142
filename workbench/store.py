"""Store: a cache of results on disk under the hash of their inputs. It is safe for many processes and detects damage.

An entry is one safetensors file whose header says of what kind it is, what it holds, its JSON facts, and a digest of everything:
pickles are neither written nor read, and a changed bit makes an entry that does not exist. There is no index beside the entries
that could differ from them: what `Store.items` lists stands in their headers. A store that cannot be written is a warning, once,
and whoever computes goes on without it. torch is loaded only for entries that hold tensors.
"""

import hashlib
import json
import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, deserialize

from workbench.atomic import PARTIAL, count_bytes, discard, read_modification_time, remove_if_abandoned, replace_file
from workbench.cache_folder import find_cache_folder
from workbench.errors import WorkbenchError, WorkbenchWarning
from workbench.outputs import explain_os_error

if TYPE_CHECKING:
    from torch import Tensor

STORE_VERSION = 2  # of keys: version 1 wrote no digests
MAX_STORE_BYTES = 4 << 30
PRUNE_CHECKS = 64  # a store is looked through for what may go each time that a 64th of its limit was written
HEADER_LIMIT = 100 << 20  # bytes, as the library allows
PLACES = ("entries/*/*", "models/*", "spill/*")
DAMAGES = (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError)

log = logging.getLogger(__name__)
_warned: set[Path] = set()  # folders that this process has warned of


class StoreWarning(WorkbenchWarning):
    """The store cannot be read or written; the work goes on without it."""


@dataclass(frozen=True)
class Entry:
    """What was stored under one key: tensors by name and JSON facts."""

    tensors: Mapping[str, "Tensor"]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Item:
    """One thing in the store: an entry's file, a saved model's folder, or a partial of either, with its time of last use.

    `kind` is the entry's, "model", "partial", or "damaged" where a header cannot be read.
    """

    path: Path
    size: int
    used: float
    kind: str
    what: str = ""

    @property
    def is_partial(self) -> bool:
        """Whether it goes as soon as no process is writing it."""
        return self.kind == "partial"


def compute_key(*parts: Any) -> str:
    """The sha256 of the parts' content as 64 hex digits: JSON values, bytes and tensors (type, shape and bytes)."""
    digest = hashlib.sha256(f"workbench store {STORE_VERSION}".encode())
    for part in parts:
        for piece in _encode_part(part):
            # the length keeps ("ab", "c") and ("a", "bc") apart
            digest.update(len(piece).to_bytes(8, "little"))
            digest.update(piece)
    return digest.hexdigest()


def _encode_part(part: Any) -> list[bytes | memoryview]:
    """The bytes of one part of a key, each kind marked so that equal bytes of different kinds differ."""
    if isinstance(part, bytes):
        return [b"bytes", part]
    try:
        return [b"json", json.dumps(part, sort_keys=True, allow_nan=False).encode()]
    except (TypeError, ValueError):
        return _encode_tensor(part)


def _encode_tensor(part: Any) -> list[bytes | memoryview]:
    """The bytes of a tensor; WorkbenchError for anything else."""
    import torch

    if not isinstance(part, torch.Tensor):
        raise WorkbenchError(f"a {type(part).__name__} cannot be part of a key; use JSON values, bytes or tensors.")
    plain = part.detach().cpu().contiguous()
    data = plain.reshape(-1).view(torch.uint8).numpy().data if plain.numel() else b""
    return [f"tensor {plain.dtype} {tuple(plain.shape)}".encode(), data]


class Store:
    """Keep results on disk under the hash of what they were made from; the oldest unused ones go when it grows too large.

    Args:
        folder: Where; the environment variable WORKBENCH_CACHE when absent, else the user's cache folder.
        limit_bytes: How much it may hold, bytes.

    Example:
        >>> import tempfile
        >>> import workbench as wb
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = wb.Store(folder)
        ...     stats = wb.calibrate(wb.open_model("builtin"), wb.text("calibration"), tokens=64, store=store)
        ...     [item.kind for item in store.items()]
        ['calibration']
    """

    def __init__(self, folder: str | Path | None = None, *, limit_bytes: int = MAX_STORE_BYTES) -> None:
        self.folder, self.limit_bytes = Path(folder or find_cache_folder()), limit_bytes
        self._unpruned = limit_bytes  # bytes written here since the whole folder was looked at

    def get(self, key: str) -> Entry | None:
        """The entry of `key`, or None; a damaged entry is removed, logged and counts as missing."""
        path = self.path(key)
        try:
            # one read of the whole file: safe_open opens it by name a second time, when it may have been replaced
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._warn("read", error)
            return None
        try:
            entry = _read_entry(data, key)
        except DAMAGES as error:
            log.warning("the stored entry %s is damaged (%s); it is computed again", path, error)
            discard(path)
            return None
        with suppress(OSError):  # a store that is only read
            os.utime(path)  # read just now: pruned last
        return entry

    def put(
        self,
        key: str,
        tensors: Mapping[str, "Tensor"],
        facts: Mapping[str, Any] | None = None,
        *,
        kind: str = "result",
        what: str = "",
    ) -> None:
        """Store tensors and facts under `key`, replacing what was there, and prune; a warning where it cannot be written.

        `kind` and `what` say to a reader of the list what this is, for example a layer, and which.
        """
        data = _encode_entry(key, tensors, facts or {}, kind, what)
        try:
            replace_file(self.path(key), data)
            self._unpruned += len(data)
            if self._unpruned >= self.limit_bytes / PRUNE_CHECKS:
                self.prune(keep=key)
        except OSError as error:
            self._warn("written", error)

    def remove(self, key: str) -> None:
        """Remove the entry of `key`, if there is one."""
        discard(self.path(key))

    def prune(self, keep: str = "", *, limit_bytes: int | None = None, unused_for: float | None = None) -> int:
        """Remove what is abandoned or was not used for so many seconds, then the longest unused until the rest fits.

        Returns the bytes removed. The limit is the store's where none is given.
        """
        items = sorted(self.items(described=False), key=lambda item: item.used)
        removed = sum(remove_if_abandoned(item.path) for item in items if item.is_partial)
        lasting = [item for item in items if not item.is_partial and item.path.stem != keep]
        excess = sum(item.size for item in items if not item.is_partial)
        excess -= self.limit_bytes if limit_bytes is None else limit_bytes
        now = time.time()
        for item in lasting:
            if excess > 0 or (unused_for is not None and now - item.used > unused_for):
                discard(item.path)
                size = 0 if os.path.lexists(item.path) else item.size
                removed, excess = removed + size, excess - size
        self._unpruned = 0
        return removed

    def items(self, *, described: bool = True) -> Iterator[Item]:
        """Everything in the store; entries are only called entries unless `described`, which opens each."""
        for path in sorted(path for pattern in PLACES for path in self.folder.glob(pattern)):
            is_partial, kind, what = path.name.endswith(PARTIAL) or path.parent.name == "spill", "entry", ""
            try:
                used = read_modification_time(path) if is_partial else path.stat().st_mtime
            except OSError:  # another process has just removed it
                continue
            if is_partial:
                kind = "partial"
            elif path.parent.name == "models":
                kind = "model"
            elif described:
                kind, what = describe(path)
            yield Item(path, count_bytes(path), used, kind, what)

    def damage(self, item: Item) -> str | None:
        """What is wrong with an entry, or None; other things are checked by whoever reads them."""
        try:
            _read_entry(item.path.read_bytes(), item.path.stem)
        except FileNotFoundError:
            return None
        except OSError as error:
            return explain_os_error(error)
        except DAMAGES as error:
            return str(error) or type(error).__name__
        return None

    def model(self, key: str) -> Path:
        """The folder of a whole saved model (see `artifact.save`); asking for one that is there counts as using it."""
        folder = self.folder / "models" / key
        with suppress(OSError):
            os.utime(folder)
        return folder

    def path(self, key: str) -> Path:
        """The file of one key, in one of 256 folders."""
        return self.folder / "entries" / key[:2] / f"{key}.safetensors"

    def _warn(self, done: str, error: OSError) -> None:
        if self.folder not in _warned:
            _warned.add(self.folder)
            advice = "set WORKBENCH_CACHE to another folder, or free space with `workbench store --prune`"
            message = (
                f"the cache folder {self.folder} cannot be {done} ({explain_os_error(error)}): results are not cached; {advice}."
            )
            warnings.warn(message, StoreWarning, stacklevel=3)


def _encode_entry(key: str, tensors: Mapping[str, "Tensor"], facts: Mapping[str, Any], kind: str, what: str) -> bytes:
    """An entry as it lies in its file."""
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {"facts": json.dumps(dict(facts)), "kind": kind, "what": what}
    return save(plain, {**header, "digest": compute_digest(key, plain, header)})


def compute_digest(name: str, tensors: Mapping[str, "Tensor"], header: Mapping[str, str]) -> str:
    """Of everything that an entry is, and of the key it lies under."""
    names = sorted(tensors)
    return compute_key("entry", name, dict(header), names, *(tensors[name] for name in names))


def _read_entry(data: bytes, key: str) -> Entry:
    """The entry in a file's bytes; one of DAMAGES where it is not as it was written."""
    header = _parse_header(data)
    tensors, written = _read_tensors(data), header.pop("digest")
    if compute_digest(key, tensors, header) != written:
        raise ValueError("its content does not match its digest")
    return Entry(tensors, json.loads(header["facts"]))


def _read_tensors(data: bytes) -> dict[str, "Tensor"]:
    """The tensors in an entry's bytes, which are checked in any case."""
    if not deserialize(data):
        return {}
    from safetensors.torch import load

    return load(data)


def _parse_header(data: bytes) -> dict[str, str]:
    """What is written in the header of an entry: a length of 8 bytes, then JSON with our own words in its metadata."""
    length = int.from_bytes(data[:8], "little")
    return dict(json.loads(data[8 : 8 + length])["__metadata__"])


def describe(path: Path) -> tuple[str, str]:
    """Kind and content of an entry by its header."""
    try:
        with path.open("rb") as file:
            length = file.read(8)
            header = _parse_header(length + file.read(min(int.from_bytes(length, "little"), HEADER_LIMIT)))
        return header["kind"], header["what"]
    except (*DAMAGES, OSError):
        return "damaged", ""
