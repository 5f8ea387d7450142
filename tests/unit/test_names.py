"""Names say what they hold: none is one of the words that say nothing, or a participle alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VAGUE = {
    "asked", "each", "found", "given", "heard", "held", "here", "kept", "known", "lost", "made", "of", "own", "place", "placed",
    "put", "said", "seen", "sized", "taken", "told", "wanted", "whole", "wished", "worn",
}  # fmt: skip
# settings of recipes that stand in saved folders, a method that everyone calls so, and a field of compiled tuples
EXCEPTIONS = {
    ("workbench/presets/salient_groups.py", "kept"),
    ("workbench/quantizers/assignment/released_feedback.py", "kept"),
    ("workbench/quantizers/assignment/released_feedback.py", "of"),
    ("workbench/quantizers/splits/magnitude_groups.py", "kept"),
    ("workbench/quantizers/splits/magnitude_groups.py", "of"),
    ("workbench/store.py", "put"),
    ("workbench/kernels/matmul/numba/lut/sign_matmul.py", "each"),
    ("workbench/kernels/matmul/numba/lut/tables.py", "each"),
}


def bound_names(tree: ast.AST) -> Iterator[str]:
    """Every name that a module binds: variables, arguments, functions, classes and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name


def vague_names(tree: ast.AST) -> set[str]:
    """Those that say nothing."""
    return {name for name in bound_names(tree) if name.strip("_") in VAGUE}


def test_no_name_is_vague() -> None:
    files = sorted(path for path in (ROOT / "workbench").rglob("*.py"))
    assert files, "no sources were found"
    pairs = {(path.relative_to(ROOT).as_posix(), name) for path in files for name in vague_names(ast.parse(path.read_text()))}
    assert pairs == EXCEPTIONS


def test_a_vague_name_is_noticed() -> None:
    code = "def told(own):\n    found = [x for place in own]\n    self._kept = found\n\nclass Held:\n    made: int = 1\n"
    assert vague_names(ast.parse(code)) == {"told", "own", "found", "place", "_kept", "made"}
