"""Language models: open one, list its linear layers, read or replace a weight, run it. Only this folder imports transformers.

transformers takes seconds to import, so it is imported inside functions (see `architecture`), never at the top of a file. torch
takes seconds too: the names below are imported on first use, so that a stored list of layers (see `listing`) comes without it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.models.fused import FusedModel as FusedModel
    from workbench.models.fused import fuse as fuse
    from workbench.models.handle import ModelHandle as ModelHandle
    from workbench.models.opening import open_model as open_model

_HOMES = {"FusedModel": "fused", "fuse": "fused", "ModelHandle": "handle", "open_model": "opening"}


if not TYPE_CHECKING:  # a type checker knows the names above

    def __getattr__(name: str) -> Any:
        """Import a public name from its module on first use."""
        if name not in _HOMES:
            raise AttributeError(f"module 'workbench.models' has no attribute {name!r}; it has {', '.join(_HOMES)}.")
        return getattr(importlib.import_module(f"workbench.models.{_HOMES[name]}"), name)
