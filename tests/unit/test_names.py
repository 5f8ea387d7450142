"""Names in the house: none is vague, module functions are verbs, and a constant's name has one value within a folder."""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VAGUE = {
    "asked", "each", "found", "given", "heard", "held", "here", "kept", "known", "lost", "made", "of", "own", "place", "placed",
    "put", "said", "seen", "sized", "taken", "told", "wanted", "whole", "wished", "worn",
}  # fmt: skip
# settings of recipes that stand in saved folders, a method that everyone calls so, and a field of compiled tuples
VAGUE_EXCEPTIONS = {
    ("workbench/presets/salient_groups.py", "kept"),
    ("workbench/quantizers/assignment/released_feedback.py", "kept"),
    ("workbench/quantizers/assignment/released_feedback.py", "of"),
    ("workbench/quantizers/splits/magnitude_groups.py", "kept"),
    ("workbench/quantizers/splits/magnitude_groups.py", "of"),
    ("workbench/store.py", "put"),
    ("workbench/kernels/matmul/numba/lut/sign_matmul.py", "each"),
    ("workbench/kernels/matmul/numba/lut/tables.py", "each"),
}
VERBS = {  # `are`, `can`, `has`, `is` and `needs` begin predicates; a `main` runs a module as a program
    "accept", "adapt", "add", "advance", "allocate", "allow", "alternate", "announce", "answer", "append", "apply", "are",
    "arrange", "assemble", "assign", "attach", "attempt", "attend", "binarize", "borrow", "bound", "bracket", "build",
    "calibrate", "can", "cancel", "carry", "catch", "check", "choose", "classify", "cluster", "code", "collect", "combine",
    "compare", "compile", "complete", "compose", "compute", "convert", "copy", "count", "create", "cut", "damp", "declare",
    "decode", "defer", "define", "derive", "descend", "describe", "deserialize", "diff", "discard", "divide", "do", "double",
    "download", "draw", "drop", "emit", "empty", "encode", "end", "enlarge", "enter", "escape", "estimate", "evaluate",
    "exchange", "exit", "expand", "expect", "explain", "explore", "exponentiate", "export", "extend", "extract", "factorize",
    "fail", "feed", "fetch", "fill", "find", "finish", "fit", "flush", "fold", "follow", "format", "frame", "freeze", "fuse",
    "gather", "generate", "get", "give", "group", "has", "hash", "hear", "import", "improve", "interpolate", "invert", "is",
    "iterate", "join", "keep", "label", "lay", "learn", "leave", "list", "load", "locate", "lock", "look", "main", "make", "map",
    "mark", "mask", "match", "measure", "merge", "mix", "multiply", "name", "needs", "normalize", "note", "open", "orthogonalize",
    "pack", "pad", "pair", "parse", "pass", "pick", "plan", "plot", "pool", "prefetch", "prepare", "present", "quantize", "quote",
    "rank", "rasterize", "read", "recode", "record", "recount", "refine", "refit", "refuse", "register", "release", "remove",
    "rename", "render", "renew", "reopen", "repeat", "replace", "replay", "request", "require", "reserve", "restore", "resume",
    "reverse", "revive", "rotate", "round", "run", "sample", "sanitize", "save", "scale", "schedule", "score", "search", "select",
    "serialize", "serve", "set", "settle", "share", "shift", "shorten", "show", "shrink", "shuffle", "silence", "skip", "solve",
    "sort", "spell", "spill", "split", "spread", "stack", "start", "store", "stream", "strip", "style", "submit", "subtract",
    "suggest", "sum", "summarise", "sweep", "tabulate", "take", "tell", "to", "train", "translate", "try", "unpack", "use",
    "validate", "visit", "wait", "walk", "warm", "warn", "watch", "weigh", "wrap", "write",
}  # fmt: skip
NOUNS = {
    # the first page of the public surface, where a user asks for a thing
    "card", "error_budget", "layer_scores", "notebook", "recipe", "sensitivity", "text", "what_if",
    # their stepwise forms, and the function of a module that a subprocess runs
    "error_budget_steps", "sensitivity_steps", "steps",
    # commands: the name is the word that is typed
    "bench", "codebook", "kv", "layers", "recipes", "squeeze", "sweep", "whatif",
    # functions of mathematics, and of torch by the same name
    "binary_entropy", "entropy", "fourier", "hadamard", "linear", "perplexity", "quantiles",
    # what a dataclass or a recipe is declared with, as `field` is
    "guided_setting", "setting", "shrinkage_setting",
}  # fmt: skip
# every file format has its own version, every public module its own names, every workaround its own libraries
SEVERAL_VALUES = {"NEEDED_WITH", "VERSION", "_HOMES"}


def sources() -> list[Path]:
    """Every source file of the package."""
    files = sorted((ROOT / "workbench").rglob("*.py"))
    assert files, "no sources were found"
    return files


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


def nouns_among_functions(tree: ast.Module) -> set[str]:
    """Functions of a module that do not begin with a verb; special methods of modules have the language's names."""
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.endswith("__")}
    return {name for name in names if name.strip("_").split("_")[0] not in VERBS and name not in NOUNS}


def constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Constants of a module with their values as code."""
    for node in tree.body:
        for target in node.targets if isinstance(node, ast.Assign) else ():
            pairs = [(target, node.value)]  # type: ignore[union-attr]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):  # type: ignore[union-attr]
                pairs = list(zip(target.elts, node.value.elts, strict=True))  # type: ignore[union-attr]
            yield from (
                (name.id, ast.unparse(value)) for name, value in pairs if isinstance(name, ast.Name) and name.id.isupper()
            )


def ambiguous_constants(trees: Iterable[ast.Module]) -> set[str]:
    """Names of constants that have more than one value in the modules of a folder."""
    values: dict[str, set[str]] = defaultdict(set)
    for tree in trees:
        for name, value in constants(tree):
            values[name].add(value)
    return {name for name, different in values.items() if len(different) > 1 and name not in SEVERAL_VALUES}


def test_no_name_is_vague() -> None:
    pairs = {(path.relative_to(ROOT).as_posix(), name) for path in sources() for name in vague_names(ast.parse(path.read_text()))}
    assert pairs == VAGUE_EXCEPTIONS


def test_a_vague_name_is_noticed() -> None:
    code = "def told(own):\n    found = [x for place in own]\n    self._kept = found\n\nclass Held:\n    made: int = 1\n"
    assert vague_names(ast.parse(code)) == {"told", "own", "found", "place", "_kept", "made"}


def test_module_functions_are_verbs() -> None:
    nouns = {
        (path.relative_to(ROOT).as_posix(), name)
        for path in sources()
        for name in nouns_among_functions(ast.parse(path.read_text()))
    }
    assert not nouns, "give them a verb first, or a reason among the nouns"


def test_a_noun_among_functions_is_noticed() -> None:
    code = "def histogram(): ...\ndef draw_histogram(): ...\ndef _rows(): ...\ndef __dir__(): ...\ndef hadamard(): ...\n"
    assert nouns_among_functions(ast.parse(code)) == {"histogram", "_rows"}


def test_every_noun_is_still_there() -> None:
    names = {node.name for path in sources() for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}
    assert names >= NOUNS


def test_a_constant_has_one_value_in_its_folder() -> None:
    folders: dict[Path, list[ast.Module]] = defaultdict(list)
    for path in sources():
        folders[path.parent].append(ast.parse(path.read_text()))
    ambiguous = {
        (folder.relative_to(ROOT).as_posix(), name) for folder, trees in folders.items() for name in ambiguous_constants(trees)
    }
    assert not ambiguous


def test_a_constant_of_two_values_is_noticed() -> None:
    trees = [ast.parse(code) for code in ("ROWS, COLS = 3, 4\nVERSION = 1", "ROWS = 5\nCOLS = 4\nVERSION = 2")]
    assert ambiguous_constants(trees) == {"ROWS"}
