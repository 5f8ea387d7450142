"""Atomic writes: files and folders appear complete or not at all, and replace older ones.

What is being written is a hidden neighbour of its target, a *partial*, and is locked by its process. The system releases the lock
when the process ends, however it ends: a partial that nobody locks is abandoned, and the next one who writes there removes it.
"""

import ctypes
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

from workbench.outputs import check_file, check_folder, is_stream, translate_os_errors

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
MARK, PARTIAL, OLD = ".workbench-", ".partial", ".old"
STEM = 24  # characters of the target's name in a partial's: together they must not become too long
DAY = 86_400  # seconds after which an untouched partial is abandoned where locks do not tell


def write_file(path: str | Path, data: bytes | str, *, durable: bool = True) -> Path:
    """Write a file, text as UTF-8, or leave what was there; returns where it lies. OutputError where it cannot be written.

    A link stays one, and devices and pipes are written to. `durable` waits until the file is on the disk.
    """
    target, content = check_file(path), data.encode() if isinstance(data, str) else data
    with translate_os_errors(path):
        if is_stream(target):
            target.write_bytes(content)
        else:
            replace_file(target, content, durable=durable)
    return target


def replace_file(target: Path, data: bytes, *, durable: bool = False) -> None:
    """Write `target`, which is no link, as `write_file` does; OSError where it cannot be written."""
    with _open_partial(target, durable=durable) as file:
        file.write(data)


@contextmanager
def stream_file(path: str | Path) -> Iterator[BinaryIO]:
    """The same for what is too large to be held: a file to write into, which replaces `path` on leaving without an exception."""
    target = check_file(path)
    with translate_os_errors(path), target.open("wb") if is_stream(target) else _open_partial(target, durable=True) as file:
        yield file


@contextmanager
def _open_partial(target: Path, *, durable: bool) -> Iterator[BinaryIO]:
    """A partial to write into, which takes the name of `target` on leaving without an exception."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, handle = create(target)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(handle)
            if target.exists():
                shutil.copymode(target, partial)
            if fcntl is None:  # Windows renames no open file; elsewhere it stays locked until it has its name
                file.close()
            partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def write_large_file(path: str | Path) -> Iterator[Path]:
    """A partial file to write into, for what does not fit into memory; on leaving without an exception it becomes `path`.

    OutputError before anything is written where `path` cannot be a file, and later where the disk is full.
    """
    target = check_file(path)
    with translate_os_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(target.parent)
        partial, handle = create(target)
        try:
            yield partial
            flush(partial)
            if target.exists():
                shutil.copymode(target, partial)
            if fcntl is None:  # Windows renames no open file; elsewhere it stays locked until it has its name
                os.close(handle)
                handle = -1
            partial.replace(target)
            flush(target.parent)
        finally:
            partial.unlink(missing_ok=True)
            if handle >= 0:
                os.close(handle)


@contextmanager
def write_folder(path: str | Path, is_replaceable: Callable[[Path], bool]) -> Iterator[Path]:
    """A partial folder to write into; on leaving without an exception it takes the place of `path`.

    OutputError before anything is written where `path` is a file, or a folder that is neither empty nor replaceable, and later
    where the disk is full.
    """
    target = check_folder(path, is_replaceable)
    with translate_os_errors(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        restore(target)
        remove_abandoned(target.parent)
        partial, handle = create(target, folder=True)
        try:
            yield partial
            for item in (*partial.iterdir(), partial):
                flush(item)
            rename_partial(partial, target)
            flush(target.parent)
        finally:
            # after success this is the older folder, after an exception what was half written
            shutil.rmtree(partial, ignore_errors=True)
            if handle >= 0:
                os.close(handle)


def create(target: Path, *, folder: bool = False) -> tuple[Path, int]:
    """A new partial of `target` and the handle that locks it; -1 for a folder where folders cannot be opened."""
    while True:
        partial = target.with_name(f".{target.name[:STEM]}{MARK}{os.urandom(4).hex()}{PARTIAL}")
        if folder:
            partial.mkdir()
            handle = -1 if fcntl is None else os.open(partial, os.O_RDONLY)
        else:
            handle = os.open(partial, os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0), 0o666)
        if handle < 0 or (lock(handle) is not False and partial.exists()):
            return partial, handle
        os.close(handle)  # another process took it for abandoned before it was locked


def lock(handle: int) -> bool | None:
    """Lock an open file or folder: False where another process has locked it, None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some network file systems
        return None
    return True


def list_partials(folder: Path) -> list[Path]:
    """The partials in a folder, abandoned ones and those that are being written."""
    with suppress(OSError):
        return [Path(item.path) for item in os.scandir(folder) if MARK in item.name and item.name.endswith(PARTIAL)]
    return []


def remove_abandoned(folder: Path) -> int:
    """Remove the partials in a folder that no process is writing; returns their bytes."""
    return sum(remove_if_abandoned(path) for path in list_partials(folder))


def remove_if_abandoned(path: Path) -> int:
    """Remove a partial unless a process is writing it; returns its bytes, 0 where it stays."""
    try:
        handle = -1 if fcntl is None else os.open(path, os.O_RDONLY)
    except OSError:  # gone, or another user's
        return 0
    try:
        locked = None if handle < 0 else lock(handle)
        unsure = locked is None or MARK not in path.name  # earlier releases locked nothing
        if locked is False or (unsure and time.time() - read_modification_time(path) < DAY):
            return 0
        size = count_bytes(path)
        discard(path)
        return size
    finally:
        if handle >= 0:
            os.close(handle)


def discard(path: Path) -> None:
    """Remove a file or a folder, the folder in one step for whoever looks at it; what cannot be removed stays."""
    with suppress(OSError):
        if not path.is_dir():
            path.unlink(missing_ok=True)
            return
        if not path.name.endswith(PARTIAL):
            path = path.rename(path.with_name(f".{path.name[:STEM]}{MARK}{os.urandom(4).hex()}{PARTIAL}"))
        shutil.rmtree(path, ignore_errors=True)


def count_bytes(path: Path) -> int:
    """Bytes of a file, or of the files in a folder; 0 where it is gone."""
    with suppress(OSError):
        state = path.stat()
        return sum(item.stat().st_size for item in path.iterdir()) if stat.S_ISDIR(state.st_mode) else state.st_size
    return 0


def read_modification_time(path: Path) -> float:
    """When a file, or anything in a folder, was last written; now where it is gone."""
    with suppress(OSError):
        return max(item.stat().st_mtime for item in (path, *(path.iterdir() if path.is_dir() else ())))
    return time.time()


def restore(target: Path) -> None:
    """Bring back an older folder that a killed process had moved aside, where the system could not exchange the two."""
    begin = f".{target.name}{MARK}"
    for old in [path for path in target.parent.iterdir() if path.name.startswith(begin) and path.name.endswith(OLD)]:
        if target.exists():
            discard(old)
        else:
            old.rename(target)


def rename_partial(partial: Path, target: Path) -> None:
    """Rename `partial` to `target`; a folder that was there ends up at `partial`."""
    if not target.exists():
        partial.rename(target)
        return
    if not exchange(partial, target):
        old = target.with_name(f".{target.name}{MARK}{os.urandom(4).hex()}{OLD}")
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
