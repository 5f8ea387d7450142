"""Lazy imports: names imported on first use, and hooks that run when another module has been imported.

Python asks the finders of `sys.meta_path` for every module that is not imported yet. The one that is added here answers for a
single name, with what the others found for it and a loader that calls `action` once the module's code has run.
"""

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def run_when_imported(name: str, action: Callable[[], None]) -> None:
    """Call `action` once: now if the module `name` is imported already, otherwise right after it is."""
    if name in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, Watcher(name, action))


def import_lazily(module: str, homes: Mapping[str, str], package: str) -> Callable[[str], Any]:
    """A `__getattr__` for `module` that imports each of its names on first use, from `home:attribute` below `package`."""

    def get(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}; it has {', '.join(sorted(homes))}.")
        home, _, attribute = homes[name].partition(":")
        value = getattr(importlib.import_module(f"{package}.{home}"), attribute)
        setattr(sys.modules[module], name, value)
        return value

    return get


class Watcher(MetaPathFinder):
    """Finds one module where the other finders do, and goes when it has been imported."""

    def __init__(self, name: str, action: Callable[[], None]) -> None:
        self.name, self.action = name, action

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """The other finders' answer for the watched module, with a loader that calls back; None for every other module."""
        if fullname != self.name:
            return None
        others = [finder for finder in sys.meta_path if finder is not self and hasattr(finder, "find_spec")]
        spec = next((spec for finder in others if (spec := finder.find_spec(fullname, path, target))), None)
        if spec is not None and spec.loader is not None:
            spec.loader = Reporting(spec.loader, self)
        return spec

    def report(self) -> None:
        """The module is there."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)
            self.action()


class Reporting(Loader):
    """A module's own loader, which tells a watcher when the module has run."""

    def __init__(self, loader: Loader, watcher: Watcher) -> None:
        self.loader, self.watcher = loader, watcher

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """As the module's own loader does."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module as its own loader does, which is then the module's loader as ever, and report."""
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.watcher.report()
