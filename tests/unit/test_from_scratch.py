"""BTC-LLM on one page stores the same bits as the pipeline, and needs nothing of the workbench."""

import ast
import doctest
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import workbench as wb
from workbench import from_scratch
from workbench.jobs import run_steps
from workbench.models import ModelHandle
from workbench.quantizers.pipeline import quantize_layer

RECIPE = "btc:bits=0.8,assignment=hamming,mean=yes,scope=matrix,transform=hadamard,shrinkage=0"


def matrix_and_moment(rows: int, cols: int, seed: int) -> tuple[Tensor, Tensor]:
    """Weights with strong and weak columns, and the second moment of correlated inputs."""
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, cols, generator=draw) * torch.rand(cols, generator=draw)
    inputs = torch.randn(4 * cols, cols, generator=draw) @ torch.randn(cols, cols, generator=draw) / cols**0.5
    return weight, inputs.T @ inputs / len(inputs)


def assert_same(weight: Tensor, moment: Tensor) -> None:
    """The page and the pipeline store the same codewords and indices, and scales and means up to the last bit of fp16."""
    stored = from_scratch.quantize(weight, moment)
    result = run_steps(quantize_layer(weight, moment, wb.recipe(RECIPE)))
    packed = result.packed
    tensors = packed.children[0].tensors
    assert np.array_equal(stored.flips, packed.tensors["signs"].numpy())
    assert np.array_equal(stored.codebook, tensors["codebook"].numpy())
    assert np.array_equal(stored.index, tensors["index"].numpy())
    for name in ("scale", "mean"):
        torch.testing.assert_close(getattr(stored, name), tensors[name][:, 0], rtol=2**-10, atol=2**-14)
    assert 8 * stored.bytes == result.ledger.total_bits


@pytest.mark.parametrize(("rows", "cols", "seed"), [(64, 128, 0), (33, 64, 1), (40, 256, 2)])
def test_the_page_stores_what_the_pipeline_stores(rows: int, cols: int, seed: int) -> None:
    assert_same(*matrix_and_moment(rows, cols, seed))


def test_it_does_so_on_a_layer_of_the_built_in_model(builtin: ModelHandle) -> None:
    name = next(name for name in builtin.layer_names if builtin.layer(name).cols & (builtin.layer(name).cols - 1) == 0)
    stats = wb.calibrate(builtin, wb.text("calibration"), tokens=2048)
    assert_same(builtin.weight(name).float(), stats[name].moment.float())


def test_another_codeword_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(from_scratch, "DAMPING", 0.5)
    with pytest.raises(AssertionError):
        assert_same(*matrix_and_moment(64, 128, 0))


def test_the_product_is_that_of_the_stored_matrix() -> None:
    weight, moment = matrix_and_moment(24, 64, 3)
    stored, x = from_scratch.quantize(weight, moment), torch.randn(5, 64)
    torch.testing.assert_close(from_scratch.multiply(x, stored), x @ from_scratch.decode(stored).T, rtol=1e-4, atol=1e-4)


def test_its_example_runs() -> None:
    failed, tried = doctest.testmod(from_scratch)
    assert (failed, tried > 0) == (0, True)


def test_it_needs_torch_and_numpy_alone() -> None:
    tree = ast.parse(Path(from_scratch.__file__).read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert modules <= {"dataclasses", "numpy", "torch"}
