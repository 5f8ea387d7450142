"""A safetensors file written one tensor at a time, because the library's own writer copies all of them into memory first."""

import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
ORDER = ["U64", "I64", "F64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16", "F8_E4M3", "F8_E5M2", "I8", "U8", "BOOL"]
ALIGNMENT = 8  # of the header, in bytes
WRITE_BYTES = 1 << 26  # bytes written at a time


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors` by name: wide types first, so that every tensor is aligned, as the library orders them.

    Raises OSError where the disk is full, and KeyError for a type that safetensors has no name for.
    """
    stream_tensors(path, {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}, tensors.__getitem__)


def stream_tensors(path: Path, declared: Mapping[str, tuple[torch.dtype, Sequence[int]]], read: Callable[[str], Tensor]) -> None:
    """The same of tensors that `read(name)` gives one after the other, each of the type and shape that is declared for it."""
    names = sorted(declared, key=lambda name: (ORDER.index(DTYPES[declared[name][0]]), name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        dtype, shape = declared[name]
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            tensor = read(name)
            data = tensor.contiguous().reshape(-1).view(torch.uint8) if tensor.numel() else torch.empty(0)
            for start in range(0, len(data), WRITE_BYTES):
                file.write(data[start : start + WRITE_BYTES].numpy().data)
