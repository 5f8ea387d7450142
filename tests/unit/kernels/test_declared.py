"""What formats declare: every example fits, and every tensor and fact that does not is named before anything reads it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unit.kernels.conftest import Draw
from workbench.errors import ShapeError
from workbench.kernels import formats
from workbench.kernels.formats.declared import find_fault
from workbench.kernels.kernel_mode import Mode
from workbench.kernels.matmul.numba import backend as numba
from workbench.kernels.packing.bitpack import pack
from workbench.kernels.packing.packed import Packed


def exchanged(tree: Packed, path: str, **fields: Any) -> Packed:
    """The tree with fields of the node at `path` replaced."""
    if not path:
        return replace(tree, **fields)
    number, _, rest = path.partition(".")
    children = list(tree.children)
    children[int(number)] = exchanged(children[int(number)], rest, **fields)
    return replace(tree, children=tuple(children))


def with_tensors(tree: Packed, name: str, *others: Tensor) -> Iterator[tuple[str, Packed]]:
    """Each node that has a tensor `name`, with each of `others` in its place."""
    for path, node in tree.walk():
        if name in node.tensors:
            for other in others:
                yield path, exchanged(tree, path, tensors={**node.tensors, name: other})


def test_every_example_fits(example: Packed) -> None:
    assert find_fault(example) is None
    assert find_fault(example, (example.rows, example.cols)) is None


def test_every_tensor_that_is_cut_turned_or_of_another_type_is_named(example: Packed) -> None:
    for path, node in example.walk():
        for name, tensor in node.tensors.items():
            for other in (tensor[:0], tensor[None], tensor.reshape(-1)[:-1], tensor.to(torch.int32)):
                fault = find_fault(exchanged(example, path, tensors={**node.tensors, name: other}))
                assert fault is not None
                assert node.format in fault
                assert name in fault
            lacking = {key: value for key, value in node.tensors.items() if key != name}
            optional = name in ("zero", "mean", "column_scale", "middle", "gain") or (node.format, name) == ("rotated", "signs")
            assert (find_fault(exchanged(example, path, tensors=lacking)) is None) == optional
        surplus = {**node.tensors, "more": torch.ones(1)}
        assert "has a tensor 'more', float32 [1]" in str(find_fault(exchanged(example, path, tensors=surplus)))


def test_every_float_that_is_not_finite_is_named(example: Packed) -> None:
    for path, node in example.walk():
        for name, tensor in node.tensors.items():
            if tensor.is_floating_point():
                other = tensor.clone()
                other.view(-1)[0] = torch.nan
                fault = find_fault(exchanged(example, path, tensors={**node.tensors, name: other}))
                assert f"has a tensor {name!r} that holds 1 of {tensor.numel()} values that are NaN or infinite" in str(fault)


@pytest.mark.parametrize("value", [-1, 0, 10**30, 2.0, "2", None, True, [2]], ids=str)
def test_every_fact_out_of_range_is_named(example: Packed, value: Any) -> None:
    for path, node in example.walk():
        for name in node.facts:
            fault = find_fault(exchanged(example, path, facts={**node.facts, name: value}))
            if (name, value) != ("hadamard", True):
                assert f"has {name} = {value!r}, which must be" in str(fault)
        assert "has the fact 'more'" in str(find_fault(exchanged(example, path, facts={**node.facts, "more": 1})))
        lacking = [{key: fact for key, fact in node.facts.items() if key != name} for name in node.facts]
        for facts in lacking if node.format != "rotated" else []:
            assert "lacks the fact" in str(find_fault(exchanged(example, path, facts=facts)))


def test_children_that_do_not_fit_are_named(draw: Draw) -> None:
    tree = draw.sum()
    assert "must be 5 × 13" in str(find_fault(exchanged(tree, "1.", rows=4)))
    assert "of format 'sum' has 0 children and must have 1 to 256" in str(find_fault(replace(tree, children=())))
    inside = exchanged(draw.bitmap(), "0.", format="trellis")
    assert "stores whole matrices and is inside a mask" in str(find_fault(inside))
    assert "has the format 'pickle', which is not known here" in str(find_fault(exchanged(tree, "0.1.", format="pickle")))
    assert "shares a tensor 'book'" in str(find_fault(replace(tree, shared={"book": ("all", 2)})))


@pytest.mark.parametrize("shape", [(0, 13), (5, -1), (5.0, 13), (1 << 20, 1 << 20), (True, 13)], ids=str)
def test_sizes_that_no_matrix_has_are_named(shape: tuple[Any, Any]) -> None:
    assert "must have at least one and at most" in str(find_fault(Packed("zero", *shape)))


def test_another_shape_than_the_models_is_named(draw: Draw) -> None:
    assert "is 5 × 13 and must be 5 × 14" in str(find_fault(draw.dense(), (5, 14)))


CODES = {
    "index": (
        lambda draw: draw.codebook(4, 6, 13, extras=False),
        pack(torch.full((20,), 7), 3),
        "holds the code 7 and must hold 0",
    ),
    "order": (lambda draw: draw.permuted(draw.dense()), pack(torch.zeros(13), 4), "each number from 0 to 12 once, and holds 1"),
    "trits": (
        lambda draw: draw.ternary(1, 13),
        torch.full((13,), 243, dtype=torch.uint8),
        "holds the byte 243 and must hold 0 to",
    ),
    "map": (lambda draw: draw.chosen(), pack(torch.full((15,), 15), 4), "holds the code 15 and must hold 0 to 9"),
    "scale": (lambda draw: draw.scaled(draw.dense()), torch.zeros(13).half(), "holds 13 of 13 values that are 0"),
}


@pytest.mark.parametrize("name", CODES)
def test_codes_that_stand_for_nothing_are_named(draw: Draw, name: str) -> None:
    form, other, said = CODES[name]
    ((_, changed),) = with_tensors(form(draw), name, other)
    assert said in str(find_fault(changed))


def test_nothing_is_prepared_of_a_tree_that_does_not_fit(draw: Draw) -> None:
    tree = draw.planes(1, 13, extras=False)
    short = replace(tree, tensors={**tree.tensors, "signs": tree.tensors["signs"][:0]})
    said = (
        r"format 'planes' has a tensor 'signs' that is uint8 \[0\] and must be uint8 \[9\] \(5 × 13, planes=1, span=13\); load or"
    )
    for prepare in (numba.prepare, formats.prepare):
        with pytest.raises(ShapeError, match=said):
            prepare(short, Mode())
