"""The decorator of compiled loops: kept on disk, apart for each state of the sources of this folder.

numba keeps what a function was compiled to until the function's own file changes, and does not see that a function it calls has
changed in another file. Here loops are spread over files, so the folder's name on disk holds a digest of all of them.
"""

import functools
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import platformdirs

FOLDER = Path(__file__).parent


@functools.cache
def place() -> str:
    """Where machine code is kept: in NUMBA_CACHE_DIR, else beside the sources, else where this user keeps such things."""
    digest = hashlib.sha256()
    for path in sorted(FOLDER.glob("*.py")):
        digest.update(path.read_bytes())
    given: Any = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    beside = FOLDER / "__pycache__"
    parent = Path(given) if given else beside if writable(beside) else Path(platformdirs.user_cache_dir("quantization-workbench"))
    return str(parent / f"kernels-{digest.hexdigest()[:16]}")


def writable(folder: Path) -> bool:
    """Whether a file can be made there."""
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """`numba.njit` without the interpreter's lock, with the machine code kept in `place()`."""
    if function is None:
        return functools.partial(compiled, **options)
    dispatcher: Any = numba.njit(nogil=True, **options)(function)
    before = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    numba.config.CACHE_DIR = place()  # type: ignore[attr-defined]
    try:
        dispatcher.enable_caching()
    finally:
        numba.config.CACHE_DIR = before  # type: ignore[attr-defined]
    return dispatcher
