"""A folder that appears whole or not at all, also in the place of an older one."""

import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.artifact.layout import is_artifact
from workbench.errors import ArtifactError

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary neighbour of `target` to write into; on leaving without an exception it takes the target's place.

    Raises ArtifactError before anything is written when `target` is a file, or a folder with other things in it.
    """
    check_place(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.", suffix=".partial"))
    try:
        partial.chmod(0o755)
        yield partial
        for path in (*partial.iterdir(), partial):
            flush(path)
        take_place(partial, target)
        flush(target.parent)
    finally:
        # after success this is the older artifact, after an exception what was half written
        shutil.rmtree(partial, ignore_errors=True)


def check_place(target: Path) -> None:
    """Raise ArtifactError unless `target` is absent, an empty folder or an artifact, which may be replaced."""
    if target.is_dir():
        if any(target.iterdir()) and not is_artifact(target):
            raise ArtifactError(f"{target} holds other files; give a new or empty folder, or one saved by this workbench.")
    elif target.exists():
        raise ArtifactError(f"{target} is a file; give a folder.")


def take_place(partial: Path, target: Path) -> None:
    """Rename `partial` to `target`; a folder that was there ends up at `partial`."""
    if not target.exists():
        partial.rename(target)
        return
    if not exchange(partial, target):
        old = partial.with_suffix(".old")
        target.rename(old)
        try:
            partial.rename(target)
        except OSError:
            old.rename(target)
            raise
        old.rename(partial)


def exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step, where the system can (Linux renameat2); False means nothing was done."""
    if not sys.platform.startswith("linux"):
        return False
    call: Callable[..., int] | None = getattr(ctypes.CDLL(None), "renameat2", None)
    if call is None:
        return False
    return call(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0


def flush(path: Path) -> None:
    """Wait until a file or a folder's list of names is on the disk; folders cannot be opened on Windows."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
