"""PackedLinear gives what nn.Linear with the decoded weight gives, and is honest about its memory."""

import re
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.unit.kernels.conftest import Draw
from workbench.errors import KernelError
from workbench.kernels import formats
from workbench.kernels.matmul.packed_linear import PackedLinear, warm_up
from workbench.kernels.matmul.packed_matrix import count_resident_bytes
from workbench.kernels.packing.packed import Packed


def stored_bytes(packed: Packed) -> int:
    return sum(tensor.nbytes for _, node in packed.walk() for tensor in node.tensors.values())


def plain(packed: Packed, bias: torch.Tensor) -> nn.Linear:
    linear = nn.Linear(packed.cols, packed.rows)
    linear.weight.data, linear.bias.data = formats.decode(packed), bias
    return linear


@pytest.fixture
def by_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run on the reference backend, which sums in float32 and minds `cache`."""
    monkeypatch.setenv("WORKBENCH_KERNELS", "reference")


@pytest.mark.usefixtures("by_reference")
@pytest.mark.parametrize("cache", ["decoded", "none"])
def test_equals_a_linear_layer_with_the_decoded_weight(example: Packed, cache: str) -> None:
    linear = plain(example, torch.randn(example.rows))
    packed = PackedLinear.instead_of(linear, example, cache=cache)
    x = torch.randn(2, 7, example.cols)
    for _ in range(2):
        torch.testing.assert_close(packed(x), linear(x).detach(), rtol=1e-4, atol=1e-4)
    assert (packed.in_features, packed.out_features) == (linear.in_features, linear.out_features)


@pytest.mark.parametrize("backend", ["numba", "reference"])
@pytest.mark.parametrize("cache", ["decoded", "none"])
@pytest.mark.parametrize("shape", [(1, 47), (3, 49), (2, 24), (1, 2, 24), (47,), ()], ids=str)
def test_inputs_of_another_width_are_refused(
    backend: str, cache: str, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where as many numbers would be there: compiled loops would read, and write, past the end of a row."""
    monkeypatch.setenv("WORKBENCH_KERNELS", backend)
    layer = PackedLinear(Draw(rows=64, cols=48).codebook(8, 64, 48, extras=False), cache=cache)
    said = re.escape(f"inputs of shape {list(shape)} do not fit a matrix of 48 columns; give [..., 48].")
    with pytest.raises(KernelError, match=said):
        layer(torch.ones(shape))


def test_holds_the_tree_it_was_given(example: Packed) -> None:
    held = PackedLinear(example).packed
    for (path, given), (again, kept) in zip(example.walk(), held.walk(), strict=True):
        assert (path, given.format, given.facts) == (again, kept.format, kept.facts)
        for name, tensor in given.tensors.items():
            assert torch.equal(kept.tensors[name], tensor)


@pytest.mark.usefixtures("by_reference")
@pytest.mark.parametrize(("cache", "extra"), [("none", 0), ("decoded", 4 * 5 * 13)])
def test_resident_bytes_count_what_is_held(draw, cache: str, extra: int) -> None:
    tree = draw.sum()
    packed = PackedLinear(tree, torch.zeros(5), cache=cache)
    assert packed.resident_bytes == stored_bytes(tree) + 20
    packed(torch.ones(1, 13))
    assert packed.resident_bytes == stored_bytes(tree) + 20 + extra


def test_a_shared_codebook_is_resident_once(draw) -> None:
    tree = draw.codebook(4, 6, 13, extras=False)
    other = replace(
        tree, tensors={**tree.tensors, "index": tree.tensors["index"].clone(), "scale": tree.tensors["scale"].clone()}
    )
    both = count_resident_bytes([PackedLinear(tree), PackedLinear(other)])
    assert both == 2 * stored_bytes(tree) - tree.tensors["codebook"].nbytes


def test_casting_keeps_stored_types(example: Packed) -> None:
    packed = PackedLinear(example)
    before = {name: buffer.dtype for name, buffer in packed.named_buffers()}
    expected = formats.decode(packed.packed)
    packed.to(torch.bfloat16)
    assert {name: buffer.dtype for name, buffer in packed.named_buffers()} == before
    assert torch.equal(formats.decode(packed.packed), expected)


@pytest.mark.usefixtures("by_reference")
@pytest.mark.parametrize(
    ("cache", "words"), [("decoded", "caches the decoded matrix, 260 bytes"), ("none", "decodes at every call")]
)
def test_explain_tells_what_the_cache_does(draw, cache: str, words: str) -> None:
    assert words in PackedLinear(draw.planes(1, 4, extras=False), cache=cache).explain().reason


def test_a_change_of_backend_is_seen_at_once(draw, monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = PackedLinear(draw.planes(1, 13, extras=False)), torch.ones(1, 13)
    monkeypatch.delenv("WORKBENCH_KERNELS", raising=False)
    layer(x)
    assert list(layer._prepared) == ["numba"]
    monkeypatch.setenv("WORKBENCH_KERNELS", "reference")
    layer(x)
    assert list(layer._prepared) == ["numba", "reference"]


def test_moving_forgets_what_was_prepared(draw) -> None:
    layer = PackedLinear(draw.planes(1, 13, extras=False))
    stored = layer.resident_bytes
    layer(torch.ones(1, 13))
    assert layer.resident_bytes > stored
    assert layer.to("cpu").resident_bytes == stored


def test_warming_up_prepares_every_layer(draw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBENCH_KERNELS", raising=False)
    layers = nn.Sequential(PackedLinear(draw.planes(1, 13, extras=False)), nn.ReLU(), PackedLinear(draw.dense()))
    told: list[tuple[float, float]] = []
    warm_up(layers, lambda done, total: told.append((done, total)))
    assert [list(layers[i]._prepared) for i in (0, 2)] == [["numba"], ["reference"]]
    assert told == [(0, 2), (1, 2), (1, 1)]


def test_weight_is_the_decoded_matrix_and_not_kept(example: Packed) -> None:
    """Whatever its stored tensors are called; a placeholder can stand in its place."""
    layer = PackedLinear(example)
    before = layer.resident_bytes
    assert torch.equal(layer.weight, formats.decode(example))
    assert layer.weight.dtype == torch.float32
    assert layer.resident_bytes == before
    assert set(layer.state_dict()) == set(dict(layer.named_buffers()))
    stored, placeholder = dict(layer._buffers), torch.empty(1)
    layer._buffers.clear()
    layer.weight = placeholder
    assert layer.weight is placeholder
    del layer.weight
    layer._buffers.update(stored)
    assert torch.equal(layer.weight, formats.decode(example))
    with pytest.raises(AttributeError, match="unknown"):
        _ = layer.unknown
