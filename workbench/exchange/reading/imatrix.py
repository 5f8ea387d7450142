"""Importance matrices of llama.cpp: for each matrix the mean square of each of its inputs, in the old binary form or in GGUF."""

import struct
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from workbench.errors import ModelError
from workbench.exchange.reading import gguf_types
from workbench.exchange.reading.gguf_file import MAGIC, GgufFile, read_gguf
from workbench.json_value import shorten_value

SUMS, COUNTS = ".in_sum2", ".counts"
CHUNK_TOKENS = 512  # llama.cpp's default; the old form counts chunks and does not say how long they are
LONGEST_NAME, LARGEST_ENTRY = 1 << 12, 1 << 28


@dataclass(frozen=True)
class InputSquares:
    """The mean squares of a matrix's inputs: `mean [cols]` float32 over `tokens` tokens."""

    mean: Tensor
    tokens: int


def read_imatrix_file(path: Path) -> dict[str, InputSquares]:
    """Read an importance matrix.

    Args:
        path: A file of `llama-imatrix`, `.dat` or `.gguf`.

    Returns:
        The inputs of each matrix, by llama.cpp's name of its tensor: "blk.0.attn_q.weight". Stacked experts are left out.

    Raises:
        ModelError: In one sentence, where this is no such file, or it is damaged.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(len(MAGIC))
            squares = _read_gguf(read_gguf(path)) if start == MAGIC else _read_binary(path, start + stream.read())
    except OSError as error:
        raise ModelError(f"{str(path)!r} cannot be read: {error.strerror or error}.") from error
    for name, entry in squares.items():
        if not bool(torch.isfinite(entry.mean).all()) or bool((entry.mean < 0).any()):
            raise _describe_damage(path, f"mean squares of {shorten_value(name)} are negative or not finite")
    if not squares:
        raise ModelError(f"{path} holds no mean squares of inputs; it is no importance matrix of llama.cpp.")
    return squares


def _read_gguf(file: GgufFile) -> dict[str, InputSquares]:
    """Sums of squares over counts of tokens."""
    gguf_types.import_gguf()
    squares = {}
    for name, entry in file.tensors.items():
        if not name.endswith(SUMS):
            continue
        owner = name.removesuffix(SUMS)
        if f"{owner}{COUNTS}" not in file.tensors:
            raise _describe_damage(file.path, f"the counts of {shorten_value(owner)} are missing")
        counts, sums = file.read(f"{owner}{COUNTS}").reshape(-1).float(), file.read(name).float()
        if len(counts) != sums.numel() // entry.shape[-1]:
            raise _describe_damage(file.path, f"{shorten_value(owner)} has {len(counts)} counts for sums of {list(sums.shape)}")
        if len(counts) == 1 and float(counts) >= 1:
            squares[owner] = InputSquares(sums.reshape(-1) / counts, int(counts))
    return squares


def _read_binary(path: Path, content: bytes) -> dict[str, InputSquares]:
    """Entries of name, number of chunks, and mean squares times that number; every size is checked against the file."""
    squares, position = {}, 0

    def take(size: int) -> bytes:
        nonlocal position
        if not 0 <= size <= len(content) - position:
            raise _describe_damage(path, "it is cut off, or no importance matrix of llama.cpp")
        position += size
        return content[position - size : position]

    def take_number(largest: int) -> int:
        (number,) = struct.unpack("<i", take(4))
        if not 0 <= number <= largest:
            raise _describe_damage(path, f"it holds the size {number:,}, so it is no importance matrix of llama.cpp")
        return number

    for _ in range(take_number(len(content) // 12)):
        name = take(take_number(LONGEST_NAME)).decode("utf-8", "replace")
        chunks, count = take_number(LARGEST_ENTRY), take_number(LARGEST_ENTRY)
        values = torch.frombuffer(bytearray(take(4 * count)), dtype=torch.float32) if count else torch.empty(0)
        if chunks and count and "_exps." not in name:
            squares[name] = InputSquares(values / chunks, chunks * CHUNK_TOKENS)
    return squares


def _describe_damage(path: Path, what: str) -> ModelError:
    return ModelError(f"{path} is damaged or incomplete: {what}; make or copy it again.")
