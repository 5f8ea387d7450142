"""The registry of parts: a part registers itself once, and recipes, forms and tests find it by kind and name.

The parts of a kind are imported when the first of them is needed: most need torch, which takes longer than a short command.

Kinds in use: transform, split, coder, assignment, correction, activations, refinement, allocation, format (how a matrix
is stored), preset, and kv (how a key-value cache is stored).
"""

import dataclasses
import difflib
import importlib
from collections.abc import Callable
from typing import Any, TypeVar

from workbench.errors import RecipeError
from workbench.interrupts import defer_interrupts
from workbench.json_value import shorten_value

T = TypeVar("T")

MAX_NAME_CHARS = 200  # characters of a name that are compared with those there are

_parts: dict[str, dict[str, Any]] = {}
_homes: dict[str, str] = {}  # of each kind, the package whose import registers all its parts


def register(kind: str, name: str) -> Callable[[T], T]:
    """Decorator that files a class or function under `kind` and `name` and writes both on it."""

    def file(part: T) -> T:
        shelf = _parts.setdefault(kind, {})
        if name in shelf:
            raise AssertionError(f"{kind} {name!r} is registered twice: {shelf[name]!r} and {part!r}")
        shelf[name] = part
        part.kind, part.name = kind, name  # type: ignore[attr-defined]
        return part

    return file


def add_home(home: str, *kinds: str) -> None:
    """Say that importing the package `home` registers all parts of these kinds; it is imported when one is first needed."""
    _homes.update(dict.fromkeys(kinds, home))


def _import_home(kind: str) -> None:
    """Register all parts of a kind."""
    if kind in _homes:
        with defer_interrupts():  # half of the parts could not be registered again
            importlib.import_module(_homes[kind])


def list_names(kind: str) -> list[str]:
    """The registered names of one kind, sorted."""
    _import_home(kind)
    return sorted(_parts.get(kind, {}))


def find(kind: str, name: str) -> Any:
    """The part filed under `kind` and `name`; an unknown name is answered with the nearest one and the list."""
    if name not in _parts.get(kind, {}):
        _import_home(kind)
    shelf = _parts.get(kind, {})
    if name not in shelf:
        raise RecipeError(describe_unknown(kind, name, list_names(kind)))
    return shelf[name]


def make(kind: str, name: str, /, **fields: Any) -> Any:
    """Build one part of a recipe by its kind and name; `wb.Recipe` puts parts together.

    Args:
        kind: "transform", "split", "coder", "assignment", "correction", "activations", "refinement", "allocation", "kv" or
            "preset".
        name: The part's name among those of its kind.
        fields: Its settings; the part's defaults hold for those that are absent.

    Returns:
        The part, a frozen dataclass.

    Raises:
        RecipeError: For an unknown kind, name or setting, with the nearest one, and for a value out of range.

    Example:
        >>> import workbench as wb
        >>> coder = wb.part("coder", "uniform", bits=3)
        >>> coder.bits, coder.group
        (3, 128)
    """
    part = find(kind, name)
    field_names = [field.name for field in dataclasses.fields(part)] if dataclasses.is_dataclass(part) else []
    for field in fields:
        if field not in field_names:
            raise RecipeError(f"{kind} {name!r}: {describe_unknown('field', field, field_names)}")
    return part(**fields)


def describe_unknown(what: str, name: str, names: list[str]) -> str:
    """One sentence for a name that does not exist, with the nearest name that does."""
    near = difflib.get_close_matches(name[:MAX_NAME_CHARS], names, n=1)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {shorten_value(name)}.{guess} Known: {', '.join(names) or 'none'}."
