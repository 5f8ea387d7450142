"""Output paths, checked before any work, and system errors as sentences."""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from workbench.errors import OutputError

NAME_BYTES = 255  # what file systems allow where they do not say
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS)


def check_file(path: str | Path) -> Path:
    """Where a file given as `path` is written: links are followed, so that a link stays one. OutputError where it cannot be."""
    target = follow(path)
    if target.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file, for example {Path(path) / 'output'}.")
    if target.exists() and not os.access(target, os.W_OK):
        raise OutputError(f"{path} is write-protected; give the name of another file.")
    if not is_stream(target):
        _check_parents(target)
    return target


def check_folder(path: str | Path, is_replaceable: Callable[[Path], bool]) -> Path:
    """Where a folder given as `path` is written, as in `check_file`; one that is there must be empty or replaceable."""
    target = follow(path)
    if target.exists() and not target.is_dir():
        raise OutputError(f"{path} is a file; give a folder.")
    if target.is_dir():
        _check_use(path, target)
        if any(target.iterdir()) and not is_replaceable(target):
            raise OutputError(f"{path} holds other files; give a new or empty folder, or one saved by this workbench.")
    _check_parents(target)
    return target


def follow(path: str | Path) -> Path:
    """The absolute path without links; OutputError where a link leads nowhere or a name cannot exist."""
    with translate_os_errors(path):
        target = Path(path).expanduser().absolute()
    for step in (*reversed(target.parents), target):
        _check_name(step)
        with translate_os_errors(path):
            if not os.path.lexists(step):
                continue
            if step.is_symlink() and not step.exists():
                there = step.readlink()
                raise OutputError(f"{step} is a link to {there}, which does not exist; remove the link, or give another path.")
    with translate_os_errors(path), suppress(FileNotFoundError, NotADirectoryError):
        os.lstat(target)  # says whether all of it is too long
    return Path(os.path.realpath(target))


def _check_name(path: Path) -> None:
    """Raise OutputError for a name that no file system takes."""
    size, limit = len(os.fsencode(path.name)), NAME_BYTES
    if size > limit:
        raise OutputError(f"the name {path.name[:30]}… has {size} bytes, but at most {limit} are allowed; give a shorter one.")
    if "\0" in path.name:
        raise OutputError(f"the name {path.name!r} contains a zero byte; give another one.")


def _check_use(path: str | Path, folder: Path) -> None:
    """Raise OutputError for a folder that cannot be exchanged for another: where this process is, or a disk's root."""
    if Path.cwd().is_relative_to(folder):
        raise OutputError(f"{path} is the current folder, or contains it, and cannot be replaced; give a subfolder.")
    if folder.is_mount():
        raise OutputError(f"{path} is where a disk is mounted and cannot be replaced; give a folder below it.")


def _check_parents(target: Path) -> None:
    """Raise OutputError unless `target` can be made: the folder that exists above it must take new files."""
    above = next(parent for parent in target.parents if os.path.lexists(parent))
    if not above.is_dir():
        raise OutputError(f"{target} cannot be written: {above} is a file; give a path in a folder.")
    probe = above / f".workbench-{os.urandom(4).hex()}.partial"
    with translate_os_errors(target):
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        probe.unlink()


def is_stream(path: Path) -> bool:
    """Whether a path is a device or a pipe: it is written to, and never replaced."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextmanager
def translate_os_errors(path: str | Path) -> Iterator[None]:
    """Turn what the system says about writing `path` into an OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {explain_os_error(error)}.") from error


def explain_os_error(error: OSError) -> str:
    """Why the system refused, and what to do about it, without a full stop."""
    message = error.strerror or str(error) or type(error).__name__
    if error.errno in FULL:
        return f"no space is left for it ({message}); free some, or give a path on a larger disk"
    if error.errno in REFUSED:
        return f"writing is not permitted there ({message}); give a path that you may write to"
    return f"{message}; give another path"
