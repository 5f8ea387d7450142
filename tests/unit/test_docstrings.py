"""What `help` says of every public name: what it takes, gives and raises, with an example that runs."""

import ast
import doctest
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

import workbench as wb
from workbench import errors

MODULES = ("figures", "measures")
NAMES = [*wb.__all__, *(f"{module}.{name}" for module in MODULES for name in getattr(wb, module).__all__)]
SECTIONS = ("Args", "Returns", "Raises", "Example")


def find_public(name: str) -> Any:
    """The value of a public name, imported only now; of a plain value its class, which says what it is."""
    module, _, attribute = name.rpartition(".")
    value = getattr(getattr(wb, module) if module else wb, attribute)
    return value if callable(value) or isinstance(value, ModuleType) else type(value)


def read_docs(value: Any) -> str:
    """The docstring; that of a class is followed by that of its `__init__`, where an ancestor says what all take."""
    docs = inspect.cleandoc(value.__doc__ or "")
    own = "__init__" in vars(value) if inspect.isclass(value) else True
    return docs if own else f"{docs}\n\n{inspect.cleandoc(value.__init__.__doc__ or '')}"


def read_section(docs: str, title: str) -> str:
    """The indented lines below each `title:`."""
    return "\n".join(re.findall(rf"^{title}:\n((?:(?: .*)?\n)+)", f"{docs}\n", re.MULTILINE))


def list_entries(section: str) -> set[str]:
    """What a section names, one at the beginning of each entry."""
    return set(re.findall(r"^ {4}(\w+): \S", section, re.MULTILINE))


def list_parameters(value: Any) -> list[str]:
    """What a function, or a class when it is called, takes."""
    return list(inspect.signature(value).parameters)


def list_raised(value: Any) -> Iterator[str]:
    """The errors that the code of a function, or of how an object of a class begins, raises by name."""
    body = ast.parse(textwrap.dedent(inspect.getsource(value))).body
    if inspect.isclass(value):
        methods = [node for node in ast.walk(body[0]) if isinstance(node, ast.FunctionDef)]
        body = [node for node in methods if node.name in ("__init__", "__post_init__")]
    for node in (found for part in body for found in ast.walk(part)):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            name = ast.unparse(node.exc.func).rpartition(".")[2]
            if hasattr(errors, name):
                yield name


def list_gaps(value: Any) -> list[str]:
    """What the docstring of a public value leaves out."""
    docs = read_docs(value)
    first = docs.splitlines()[0] if docs else ""
    gaps = [] if first.endswith((".", "?")) else ["a summary of one sentence in the first line"]
    if ">>> " not in read_section(docs, "Example"):
        gaps.append("an example")
    if isinstance(value, ModuleType):
        return gaps
    told, raised = list_entries(read_section(docs, "Args")), list_entries(read_section(docs, "Raises"))
    gaps += [f"parameter {name}" for name in list_parameters(value) if name not in told]
    gaps += [f"no parameter is called {name}" for name in sorted(told - set(list_parameters(value)))]
    gaps += [f"that it raises {error}" for error in sorted(set(list_raised(value)) - raised)]
    if not inspect.isclass(value) and inspect.signature(value).return_annotation is not None:
        gaps += [] if read_section(docs, "Returns").strip() else ["what it returns"]
    return gaps


def run_example(name: str, docs: str) -> tuple[int, str]:
    """How many lines of an example ran, and what doctest says of those that gave something else."""
    runner, said = doctest.DocTestRunner(), list[str]()
    runner.run(doctest.DocTestParser().get_doctest(docs, {}, name, name, 0), out=said.append)
    return runner.summarize(verbose=False).attempted, "".join(said)


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_says_what_it_takes_and_gives(name: str) -> None:
    assert list_gaps(find_public(name)) == []


@pytest.mark.parametrize("name", NAMES)
def test_the_example_runs(name: str) -> None:
    tried, said = run_example(name, find_public(name).__doc__)
    assert said == ""
    assert tried > 1, "it imports and then does something"


def take(count: int, *, exact: bool = True) -> int:
    """Take so many.

    Args:
        count: How many.
        exact: Whether no more are taken.

    Returns:
        How many were taken.

    Raises:
        ShapeError: For less than one.

    Example:
        >>> 1 + 1
        2
    """
    if count < 1:
        raise errors.ShapeError(f"{count} of them.")
    return count


class Taken:
    """What was taken.

    Args:
        count: How many.

    Example:
        >>> 1 + 1
        2
    """

    def __init__(self, count: int) -> None:
        self.count = count


@pytest.mark.parametrize(
    ("value", "old", "new", "gaps"),
    [
        (take, "so many", "so many", []),
        (take, "Take so many.", "Take so many", ["a summary of one sentence in the first line"]),
        (take, ">>> 1 + 1", "1 + 1", ["an example"]),
        (take, "exact: Whether", "strict: Whether", ["parameter exact", "no parameter is called strict"]),
        (take, "Returns:\n        How many were taken.", "It is long.", ["what it returns"]),
        (take, "ShapeError: For", "ModelError: For", ["that it raises ShapeError"]),
        (Taken, "was taken", "was taken", []),
        (Taken, "count: How", "number: How", ["parameter count", "no parameter is called number"]),
    ],
    ids=["whole", "summary", "example", "parameter", "returns", "raises", "class", "parameter-of-a-class"],
)
def test_what_a_docstring_leaves_out_is_noticed(
    value: Any, old: str, new: str, gaps: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert old in value.__doc__
    monkeypatch.setattr(value, "__doc__", value.__doc__.replace(old, new))
    assert list_gaps(value) == gaps


def test_an_example_that_gives_something_else_is_noticed() -> None:
    assert run_example("take", str(take.__doc__)) == (1, "")
    tried, said = run_example("take", str(take.__doc__).replace("        2\n", "        3\n"))
    assert tried == 1
    assert "Expected:\n    3\nGot:\n    2\n" in said
