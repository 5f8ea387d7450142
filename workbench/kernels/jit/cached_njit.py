"""The decorator of compiled loops: machine code is cached on disk, separately for each version of the sources.

numba keeps what a function was compiled to until the function's own file changes, and does not see that a function it calls has
changed in another file. Here loops are spread over files, so the name of the cache folder holds a digest of every folder that
has compiled loops.
"""

import functools
import hashlib
import pickle
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import platformdirs

from workbench.errors import WorkbenchWarning

KERNELS = Path(__file__).parents[1]
COMPILED_FOLDERS = ("decoder", "jit", "matmul/numba", "search/numba")  # below KERNELS, each module with `compile_cached` in one


@functools.cache
def find_cache_folder() -> str | None:
    """Where machine code is kept: in NUMBA_CACHE_DIR, else beside the sources, else where this user keeps such things.

    None, with a warning, where none of them can be written: then loops are compiled again in each process.
    """
    digest = hashlib.sha256()
    for path in sorted(path for folder in COMPILED_FOLDERS for path in (KERNELS / folder).rglob("*.py")):
        digest.update(path.read_bytes())
    configured: Any = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    beside = KERNELS / "jit" / "__pycache__"
    others = [beside, Path(platformdirs.user_cache_dir("quantization-workbench"))]
    parent = next(filter(_is_writable, [Path(configured)] if configured else others), None)
    if parent is None:
        _warn_unkept("no folder is writable")
        return None
    return str(parent / f"kernels-{digest.hexdigest()[:16]}")


@functools.cache
def _warn_unkept(why: str) -> None:
    """Say, once, that machine code is not kept."""
    message = (
        f"compiled kernels are not cached ({why}), so each process compiles them again; set NUMBA_CACHE_DIR to another folder."
    )
    warnings.warn(message, WorkbenchWarning, stacklevel=2)


def _is_writable(folder: Path) -> bool:
    """Whether a file can be made there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def compile_cached(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    """`numba.njit` without the interpreter's lock, with the machine code kept in `find_cache_folder()`."""
    if function is None:
        return functools.partial(compile_cached, **options)
    dispatcher: Any = numba.njit(nogil=True, **options)(function)
    if find_cache_folder() is None:
        return dispatcher
    before = numba.config.CACHE_DIR  # type: ignore[attr-defined]
    numba.config.CACHE_DIR = find_cache_folder()  # type: ignore[attr-defined]
    try:
        dispatcher.enable_caching()
    finally:
        numba.config.CACHE_DIR = before  # type: ignore[attr-defined]
    _keep_what_fits(dispatcher._cache)
    return dispatcher


def _keep_what_fits(cache: Any) -> None:
    """Let a full disk, or a file that cannot be read, cost a compilation and not the product: numba raises what it meets."""
    load, save = cache.load_overload, cache.save_overload

    def load_overload(*arguments: Any) -> Any:
        try:
            return load(*arguments)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            _warn_unkept(f"{type(error).__name__}: {error}")
            return None

    def save_overload(*arguments: Any) -> None:
        try:
            save(*arguments)
        except OSError as error:
            _warn_unkept(f"{error.strerror}")

    cache.load_overload, cache.save_overload = load_overload, save_overload
