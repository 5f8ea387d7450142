"""The registry: parts by kind and name, helpful answers to wrong names, and all parts there from the start."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from workbench import registry
from workbench.errors import RecipeError


@pytest.fixture
def shelf() -> Iterator[str]:
    """A kind of this test's own."""
    yield "fruit"
    registry._parts.pop("fruit", None)


@dataclass(frozen=True)
class Plain:
    size: int = 1


def test_a_part_is_found_by_its_name_and_knows_it(shelf: str) -> None:
    part = registry.register(shelf, "apple")(Plain)
    assert registry.find(shelf, "apple") is part
    assert (part.kind, part.name) == (shelf, "apple")  # type: ignore[attr-defined]
    assert registry.make(shelf, "apple", size=3) == Plain(3)


def test_names_are_sorted(shelf: str) -> None:
    for name in ("pear", "apple"):
        registry.register(shelf, name)(type(name, (), {}))
    assert registry.list_names(shelf) == ["apple", "pear"]
    assert registry.list_names("nothing of this kind") == []


def test_a_name_is_given_once(shelf: str) -> None:
    registry.register(shelf, "apple")(Plain)
    with pytest.raises(AssertionError, match="fruit 'apple' is registered twice"):
        registry.register(shelf, "apple")(type("Other", (), {}))


def test_an_unknown_name_is_answered_with_the_nearest_and_the_list(shelf: str) -> None:
    for name in ("apple", "pear"):
        registry.register(shelf, name)(type(name, (), {}))
    with pytest.raises(RecipeError, match=r"unknown fruit 'aple'\. Did you mean 'apple'\? Known: apple, pear\."):
        registry.find(shelf, "aple")
    with pytest.raises(RecipeError, match=r"unknown fruit 'xyz'\. Known: apple, pear\."):
        registry.find(shelf, "xyz")


def test_an_unknown_field_names_the_fields(shelf: str) -> None:
    registry.register(shelf, "apple")(Plain)
    with pytest.raises(RecipeError, match=r"fruit 'apple': unknown field 'sise'\. Did you mean 'size'\? Known: size\."):
        registry.make(shelf, "apple", sise=3)


KINDS = ["transform", "split", "coder", "assignment", "correction", "activations", "refinement", "format"]
FRESH = "import sys; from workbench import registry; sys.exit(not all(registry.list_names(kind) for kind in sys.argv[1:]))"


@pytest.mark.parametrize(("kinds", "status"), [(KINDS, 0), ([*KINDS, "fruit"], 1)], ids=["all", "this-test-can-fail"])
def test_a_fresh_interpreter_knows_every_part(kinds: list[str], status: int) -> None:
    """Reading a saved recipe must not depend on what was imported before."""
    assert subprocess.run([sys.executable, "-c", FRESH, *kinds], check=False).returncode == status
