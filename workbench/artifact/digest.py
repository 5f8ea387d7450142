"""SHA-256 of tensors, files and JSON documents, and the header of a safetensors file."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def hash_tensor(tensor: Tensor) -> str:
    """Of a tensor's bytes as they lie in the file."""
    plain = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.sha256(plain.view(torch.uint8).numpy().data if plain.numel() else b"").hexdigest()


def hash_file(path: Path) -> str:
    """Of a whole file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_json(document: Mapping[str, Any]) -> str:
    """Of a JSON document without its own `sha256`, however it is laid out."""
    body = {key: value for key, value in document.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def read_header(path: Path) -> bytes:
    """The first bytes of a safetensors file: the header's length (8 bytes) and the header, up to where the data begins."""
    with path.open("rb") as file:
        length = file.read(8)
        return length + file.read(int.from_bytes(length, "little"))


def hash_header(path: Path) -> str:
    """Of a safetensors file's header."""
    return hashlib.sha256(read_header(path)).hexdigest()
