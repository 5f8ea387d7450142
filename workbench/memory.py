"""Memory given back: tensors that are needed again later wait on disk, and what the allocator keeps goes to the system."""

import ctypes
import os
import shutil
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.errors import WorkbenchError
from workbench.store import Store


def spill(tensor: Tensor) -> Tensor:
    """The same values in a file below the cache folder, read back as they are used; it goes when the tensor does.

    Raises WorkbenchError where the disk has no room for them.
    """
    if not tensor.numel():
        return tensor
    folder = Store().folder / "spill"
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if tensor.nbytes > free:
        raise WorkbenchError(
            f"{tensor.nbytes:,} bytes of intermediate results do not fit below {folder}, where {free:,} bytes are free; "
            f"free some space, or set WORKBENCH_CACHE to a folder on a larger disk."
        )
    handle, name = tempfile.mkstemp(dir=folder)
    try:
        data = tensor.contiguous().reshape(-1).view(torch.uint8)
        os.truncate(handle, data.numel())
        mapped = torch.from_file(name, shared=True, size=data.numel(), dtype=torch.uint8)
        mapped.copy_(data)
    finally:
        os.close(handle)
        if os.name == "posix":  # the mapping keeps the data; elsewhere a mapped file cannot be removed
            Path(name).unlink()
    return mapped.view(tensor.dtype).view(tensor.shape)


def release_memory() -> None:
    """Give freed memory back to the system, where the C library would keep it (glibc): a block's weights are gigabytes."""
    if (trim := _allocator_trim()) is not None:
        trim(0)


@cache
def _allocator_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
