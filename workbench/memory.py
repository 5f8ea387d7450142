"""Freeing memory: tensors that are needed later wait on disk, and memory held by the allocator returns to the system."""

import ctypes
import errno
import os
import shutil
import sys
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from workbench.atomic import create
from workbench.errors import WorkbenchError
from workbench.outputs import explain_os_error
from workbench.store import Store, StoreWarning


def spill(tensor: Tensor) -> Tensor:
    """The same values in a file below the cache folder, read back as they are used; it goes when the tensor does.

    Where that folder cannot be written, the system's folder for temporary files takes its place, with a warning. Raises
    WorkbenchError where the disk has no room for them.
    """
    if not tensor.numel():
        return tensor
    data = tensor.contiguous().reshape(-1).view(torch.uint8)
    path, handle = reserve(data.numel())
    try:
        mapped = torch.from_file(str(path), shared=True, size=data.numel(), dtype=torch.uint8)
        mapped.copy_(data)
    finally:
        os.close(handle)
        if os.name == "posix":  # the mapping keeps the data; elsewhere a mapped file cannot be removed
            path.unlink()
    return mapped.view(tensor.dtype).view(tensor.shape)


def reserve(size: int) -> tuple[Path, int]:
    """A new file whose bytes the disk really has, and its handle: writing to a mapping on a full disk ends the process."""
    for folder in (Store().folder / "spill", Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path, handle = create(folder / "tensor")
        except OSError as error:
            _warn_once(folder, explain_os_error(error))
            continue
        try:
            allocate(handle, size)
        except OSError as error:
            os.close(handle)
            path.unlink()
            raise WorkbenchError(
                f"{size:,} bytes of intermediate results do not fit below {folder} ({error.strerror}), where "
                f"{shutil.disk_usage(folder).free:,} are free; free some, or set WORKBENCH_CACHE to a folder on a larger disk."
            ) from None
        return path, handle
    raise WorkbenchError("no writable folder for intermediate results; set WORKBENCH_CACHE to one.")


def allocate(handle: int, size: int) -> None:
    """Let an empty file have so many bytes, with room on the disk where the system can promise it."""
    os.truncate(handle, size)
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):  # a file system that promises nothing
                raise


@cache
def _warn_once(folder: Path, why: str) -> None:
    """Say that a folder cannot be used, once."""
    warnings.warn(f"intermediate results cannot be stored in {folder}: {why}.", StoreWarning, stacklevel=5)


def release_memory() -> None:
    """Give freed memory back to the system, where the C library would keep it (glibc): a block's weights are gigabytes."""
    if (trim := _find_allocator_trim()) is not None:
        trim(0)


@cache
def _find_allocator_trim() -> Any:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None
