"""Validation of stored trees against the declarations of their formats: the first mismatch, in words."""

from collections.abc import Iterator

from torch import Tensor

from workbench import registry
from workbench.errors import ShapeError
from workbench.kernels.formats.format import Shape, find
from workbench.kernels.packing.packed import Packed
from workbench.kernels.packing.tensor_spec import describe_tensor

MAX_WEIGHTS = 1 << 34  # weights of a matrix; those of today's largest models have 2 to the power of 32


def check_tree(packed: Packed) -> None:
    """Raise ShapeError unless a tree holds what its formats declare: facts, types, shapes and ranges of its tensors, children."""
    if fault := find_fault(packed):
        raise ShapeError(f"a stored matrix {fault}; load or quantize it again.")


def find_fault(packed: Packed, shape: Shape | None = None) -> str | None:
    """What is wrong with a tree, as a predicate that names the node, tensor or fact; None where nothing is.

    `shape` is that of the matrix that it must be.
    """
    rows, cols = packed.rows, packed.cols
    if not all(type(size) is int and size > 0 for size in (rows, cols)) or rows * cols > MAX_WEIGHTS:
        return f"is {rows!r} × {cols!r} and must have at least one and at most {MAX_WEIGHTS:,} weights"
    return next(_iterate_faults(packed, "", shape or (rows, cols), None), None)


def _iterate_faults(packed: Packed, path: str, shape: Shape, mask: Tensor | None) -> Iterator[str]:
    """What is wrong with a node and those below it."""
    where = f"in node {path.removesuffix('.')!r} " if path else ""
    if packed.format not in registry.list_names("format"):
        yield f"{where}has the format {packed.format!r}, which is not known here"
        return
    name = f"{where}of format {packed.format!r}"
    kind = find(packed)
    if (packed.rows, packed.cols) != shape:
        yield f"{name} is {packed.rows!r} × {packed.cols!r} and must be {shape[0]:,} × {shape[1]:,}"
    fewest, most = kind.children
    if not fewest <= len(packed.children) <= most:
        expected = str(fewest) if fewest == most else f"{fewest} to {most}"
        yield f"{name} has {len(packed.children)} children and must have {expected}"
    if mask is not None and not kind.maskable:
        yield f"{name} stores whole matrices and is inside a mask"
    yield from (f"{name} {fault}" for fault in _iterate_fact_faults(packed))
    yield from (f"{name} {fault}" for fault in _iterate_tensor_faults(packed, mask))
    for number, (child, (part, child_mask)) in enumerate(zip(packed.children, kind.parts(packed, mask), strict=True)):
        yield from _iterate_faults(child, f"{path}{number}.", part, child_mask)


def _iterate_fact_faults(packed: Packed) -> Iterator[str]:
    """What is wrong with the facts of a node."""
    declared = set()
    for name, spec in find(packed).facts(packed):
        declared.add(name)
        if name not in packed.facts:
            if not spec.optional:
                yield f"lacks the fact {name!r}, {spec.allowed}"
        elif not spec.fits(packed.facts[name]):
            yield f"has {name} = {shorten_value(packed.facts[name])}, which must be {spec.allowed}"
    if surplus := sorted(packed.facts.keys() - declared):
        yield f"has the fact {surplus[0]!r}, which the format does not have"


def _iterate_tensor_faults(packed: Packed, mask: Tensor | None) -> Iterator[str]:
    """What is wrong with the tensors of a node, and with who pays for them."""
    declared = set()
    for name, spec in find(packed).tensors(packed, mask):
        declared.add(name)
        if name not in packed.tensors:
            if not spec.optional:
                yield f"lacks the tensor {name!r}"
        elif why := spec.mismatch(packed.tensors[name]):
            yield f"has a tensor {name!r} that {why}{_describe_facts(packed)}"
    if surplus := sorted(packed.tensors.keys() - declared):
        description = describe_tensor(packed.tensors[surplus[0]])
        yield f"has a tensor {surplus[0]!r}, {description}, which the format does not have with these facts"
    if alone := sorted(packed.shared.keys() - packed.tensors.keys()):
        yield f"shares a tensor {alone[0]!r} that it does not have"


def _describe_facts(packed: Packed) -> str:
    """The size and the facts that a tensor's shape follows from, in words."""
    facts = "".join(f", {name}={value}" for name, value in packed.facts.items())
    return f" ({packed.rows:,} × {packed.cols:,}{facts})"


def shorten_value(value: object) -> str:
    """A value as text of at most a few words."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
