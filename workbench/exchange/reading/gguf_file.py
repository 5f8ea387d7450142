"""GGUF files: header, metadata and the location of each tensor, every number checked against the size of the file.

The layout (version 2 and 3, little-endian): magic, version, counts, metadata as key, type and value, the table of tensors, then
the tensors' bytes, aligned. The values of a tensor are decoded by `gguf_types`, one tensor at a time.
"""

import mmap
import struct
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.errors import ModelError
from workbench.exchange.reading import gguf_types
from workbench.json_value import shorten_value

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32  # bytes, where the metadata names no other
MAX_DIMENSIONS = 4
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
SHORTEST_STRING = 8  # bytes: the number of its own


@dataclass(frozen=True)
class GgufTensor:
    """One tensor: the file that holds it, its shape in torch's order, the number of its type, and where its bytes lie."""

    path: Path
    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int
    bytes: int


@dataclass(frozen=True)
class GgufFile:
    """The metadata and the table of tensors of a file, or of all `parts` of a model in several; none of the tensors is loaded."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]
    parts: tuple[Path, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that it consists of."""
        return self.parts or (self.path,)

    def read(self, name: str) -> Tensor:
        """The values of one tensor in its shape; nothing else is read."""
        entry = self.tensors[name]
        return gguf_types.decode(self.read_bytes(name), entry.kind, entry.shape)

    def read_slice(self, name: str, index: int) -> Tensor:
        """The values of one entry of a tensor's first dimension; nothing else is read."""
        entry = self.tensors[name]
        size = entry.bytes // entry.shape[0]
        return gguf_types.decode(_read_range(entry.path, entry.offset + index * size, size), entry.kind, entry.shape[1:])

    def read_bytes(self, name: str) -> Tensor:
        """The stored bytes of one tensor, uint8."""
        entry = self.tensors[name]
        return _read_range(entry.path, entry.offset, entry.bytes)


def _read_range(path: Path, offset: int, count: int) -> Tensor:
    """Bytes of a file, uint8."""
    try:
        with path.open("rb") as stream:
            stream.seek(offset)
            content = bytearray(stream.read(count))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.") from error
    if len(content) != count:
        raise ModelError(f"{path} was cut off while it was read; copy or download it again.")
    return torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)


def read_gguf(path: Path) -> GgufFile:
    """Read the header of a GGUF file.

    Args:
        path: The file.

    Returns:
        Its metadata and the location of each tensor.

    Raises:
        ModelError: In one sentence, where this is no GGUF file, it is cut off, or its numbers contradict each other.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                raise ModelError(f"{str(path)!r} is not a GGUF file: it does not begin with {MAGIC.decode()!r}.")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _read_header(path, content)
    except OSError as error:
        raise ModelError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error
    except (struct.error, UnicodeDecodeError) as error:
        raise _describe_damage(path, "its header is cut off or damaged") from error


def _read_header(path: Path, content: mmap.mmap) -> GgufFile:
    """The parts of the header, one after the other."""
    reader = _Reader(path, content, len(MAGIC))
    version = reader.scalar("<I")
    if version not in VERSIONS:
        if version.to_bytes(4, "little")[::-1] in {number.to_bytes(4, "little") for number in VERSIONS}:
            raise ModelError(f"{path} is a GGUF file for big-endian machines; convert it with gguf_convert_endian first.")
        raise ModelError(f"{path} is GGUF version {version}; this workbench reads versions 2 and 3.")
    tensors, fields = reader.scalar("<Q"), reader.scalar("<Q")
    reader.check_count(tensors, SHORTEST_STRING)
    reader.check_count(fields, SHORTEST_STRING)
    metadata: dict[str, Any] = {}
    for _ in range(fields):
        name = reader.string()
        if name in metadata:
            raise _describe_damage(path, f"its metadata names {shorten_value(name)} twice")
        metadata[name] = reader.value(reader.scalar("<I"))
    rows = [_read_row(reader) for _ in range(tensors)]
    return GgufFile(path, metadata, _locate_tensors(path, metadata, rows, reader.position, len(content)))


class _Reader:
    """A position in the header, which no count of the file can move past its end."""

    def __init__(self, path: Path, content: mmap.mmap, position: int) -> None:
        self.path, self.content, self.position = path, content, position

    def scalar(self, layout: str) -> Any:
        (value,) = struct.unpack_from(layout, self.content, self.position)
        self.position += struct.calcsize(layout)
        return value

    def string(self) -> str:
        size = self.scalar("<Q")
        self.check_count(size, 1)
        self.position += size
        return self.content[self.position - size : self.position].decode("utf-8")

    def check_count(self, count: int, size: int) -> None:
        """Refuse a count of items, each of at least `size` bytes, that the rest of the file cannot hold."""
        if count * size > len(self.content) - self.position:
            raise _describe_damage(self.path, f"its header announces {count:,} items, more than the file can hold")

    def value(self, kind: int) -> Any:
        """A value of the metadata: a number, a text, or a list of them."""
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self.values()
        if kind not in SCALARS:
            raise _describe_damage(self.path, f"its metadata holds a value of the unknown type {kind}")
        return self.scalar(SCALARS[kind])

    def values(self) -> list[Any]:
        kind, count = self.scalar("<I"), self.scalar("<Q")
        if kind in SCALARS:
            layout = f"<{count}{SCALARS[kind][1:]}"
            self.check_count(count, struct.calcsize(SCALARS[kind]))
            self.position += struct.calcsize(layout)
            return list(struct.unpack_from(layout, self.content, self.position - struct.calcsize(layout)))
        if kind != STRING:
            raise _describe_damage(self.path, f"its metadata holds a list of the unknown type {kind}")
        self.check_count(count, SHORTEST_STRING)
        return [self.string() for _ in range(count)]


def _read_row(reader: _Reader) -> tuple[str, tuple[int, ...], int, int]:
    """A row of the table of tensors: name, shape in torch's order, type, and offset among the tensors' bytes."""
    name, dimensions = reader.string(), reader.scalar("<I")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise _describe_damage(reader.path, f"its tensor {shorten_value(name)} has {dimensions} dimensions")
    shape = tuple(reversed([reader.scalar("<Q") for _ in range(dimensions)]))
    return name, shape, reader.scalar("<I"), reader.scalar("<Q")


def _locate_tensors(
    path: Path, metadata: dict[str, Any], rows: list[tuple[str, tuple[int, ...], int, int]], end: int, size: int
) -> dict[str, GgufTensor]:
    """The tensors by name, each checked to lie inside the file and apart from the others."""
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise _describe_damage(path, f"its alignment is {shorten_value(alignment)}, not a power of two")
    start, tensors = -(-end // alignment) * alignment, {}
    for name, shape, kind, offset in rows:
        if name in tensors:
            raise _describe_damage(path, f"it holds the tensor {shorten_value(name)} twice")
        count = gguf_types.count_bytes(kind, shape, f"{path}: tensor {shorten_value(name)}")
        if start + offset + count > size:
            lacking = start + offset + count - size
            raise _describe_damage(path, f"{lacking:,} bytes of its tensor {shorten_value(name)} are missing")
        if offset % alignment or prod(shape) == 0:
            raise _describe_damage(path, f"its tensor {shorten_value(name)} is empty or lies at the odd offset {offset:,}")
        tensors[name] = GgufTensor(path, name, shape, kind, start + offset, count)
    _check_apart(path, sorted(tensors.values(), key=lambda tensor: tensor.offset))
    return tensors


def _check_apart(path: Path, tensors: list[GgufTensor]) -> None:
    """Refuse tensors that lie on top of each other."""
    for before, after in pairwise(tensors):
        if before.offset + before.bytes > after.offset:
            raise _describe_damage(path, f"its tensors {shorten_value(before.name)} and {shorten_value(after.name)} overlap")


def _describe_damage(path: Path, what: str) -> ModelError:
    return ModelError(f"{path} is damaged or incomplete: {what}; download or copy it again.")
