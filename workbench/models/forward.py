"""Calling the forward pass of a model family: the names of its cache and switches, which differ between families and versions."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.models.architecture import shorten_error_text

# what families and versions of transformers call the memory of tokens already read; transformers 5.24 renamed the next two
CACHE_ARGUMENTS = ("cache", "past_key_values", "cache_params", "state")


@contextmanager
def translate_run_errors(name: str) -> Iterator[None]:
    """What a family's own code raises about plain text, as one ModelError."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError, LookupError, AttributeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"{name!r} cannot be run on plain text by transformers: {shorten_error_text(error)}") from error


def find_cache_argument(module: nn.Module) -> str | None:
    """The name under which `module` takes and returns its cache, or None for a family without one."""
    parameters = inspect.signature(module.forward).parameters
    return next((name for name in CACHE_ARGUMENTS if name in parameters), None)


def build_cache_kwargs(module: nn.Module, *, use_cache: bool) -> dict[str, Any]:
    """`use_cache` where the family's forward pass knows it: others read it as a word of their own, or refuse it."""
    return {"use_cache": use_cache} if "use_cache" in inspect.signature(module.forward).parameters else {}


def read_tokens(module: nn.Module, ids: Tensor) -> Any:
    """The module's output for token ids `[1, T]`, without a cache."""
    return module(ids, **build_cache_kwargs(module, use_cache=False))
