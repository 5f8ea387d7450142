"""Layers with one input, multiplied at once: the same outputs, in the memory of one."""

import pytest
import torch

from workbench.bench import contestants
from workbench.kernels.matmul.joint_layers import join_layers
from workbench.kernels.matmul.packed_linear import PackedLinear
from workbench.kernels.matmul.packed_matrix import count_resident_bytes
from workbench.kernels.packing.packed import Packed

FORMATS = {
    "signs": lambda rows: contestants._generate_signs(rows, 256, 1),
    "two-planes": lambda rows: contestants._generate_signs(rows, 256, 2),
    "ternary": lambda rows: contestants._generate_trits(rows, 256),
    "w2": lambda rows: contestants._generate_codes(rows, 256, 2),
    "w4": lambda rows: contestants._generate_codes(rows, 256, 4),
    "codebook": lambda rows: contestants._generate_codebook(rows, 256, 8, 64),
}
ROWS = (128, 64, 70)  # the last one ends within a stripe of 64 rows


def build(name: str, *, bias: bool = False) -> list[PackedLinear]:
    return [PackedLinear(FORMATS[name](rows), torch.randn(rows) if bias else None) for rows in ROWS]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("parallel", [False, True])
def test_outputs_are_those_of_each_layer(name: str, bias: bool, parallel: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.kernels.matmul.numba.lut import sign_products

    monkeypatch.setattr(sign_products, "needs_threads", lambda weights: parallel)
    layers, x = build(name, bias=bias), torch.randn(1, 256)
    expected = [layer(x) for layer in layers]
    joint = join_layers(layers)
    assert joint.is_one_call
    for output, one, layer in zip(joint(x), expected, layers, strict=True):
        torch.testing.assert_close(output, one)
        torch.testing.assert_close(layer(x), one)  # alone, in its part of the memory


def test_the_memory_of_the_layers_is_shared() -> None:
    layers, x = build("w4"), torch.randn(1, 256)
    for layer in layers:
        layer(x)
    before = count_resident_bytes(layers)
    joint = join_layers(layers)
    assert count_resident_bytes(layers) == pytest.approx(before, rel=0.01)
    signs = joint._product.stripes.signs  # type: ignore[union-attr]
    assert all(layer._prepared["numba"].product.stripes.signs.base is not None for layer in layers)
    begin, end = signs.ctypes.data, signs.ctypes.data + signs.nbytes
    assert all(begin <= layer._prepared["numba"].product.stripes.signs.ctypes.data < end for layer in layers)


def test_layers_are_joined_once_until_one_is_prepared_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = build("signs")
    joint = join_layers(layers)
    assert join_layers(layers) is joint
    assert join_layers(layers[:2]) is not joint
    assert join_layers(layers) is not joint, "two of them have moved to other memory"
    joint = join_layers(layers)
    monkeypatch.setenv("WORKBENCH_KERNELS", "reference")
    assert not join_layers(layers).is_one_call
    monkeypatch.delenv("WORKBENCH_KERNELS")
    layers[1].to(torch.float32)  # drops what was prepared
    assert join_layers(layers) is not joint


def zero_matrix() -> PackedLinear:
    return PackedLinear(Packed("zero", 64, 256, {}, {}))


@pytest.mark.parametrize(
    "layers",
    [
        lambda: [*build("signs")[:1], *build("w4")[1:]],
        lambda: build("signs")[::-1],  # one that is not the last ends within a stripe
        lambda: [*build("signs")[:2], torch.nn.Linear(256, 70)],
        lambda: [*build("signs")[:2], zero_matrix()],
    ],
    ids=["formats", "rows", "plain", "zero"],
)
def test_what_does_not_fit_together_runs_one_by_one(layers: object) -> None:
    parts, x = layers(), torch.randn(1, 256)  # type: ignore[operator]
    joint = join_layers(parts)
    assert not joint.is_one_call
    for output, layer in zip(joint(x), parts, strict=True):
        torch.testing.assert_close(output, layer(x))


def test_a_layer_that_is_watched_is_called() -> None:
    layers, seen = build("signs"), []
    joint = join_layers(layers)
    hook = layers[1].register_forward_hook(lambda *_: seen.append(1))
    joint(torch.randn(1, 256))
    hook.remove()
    joint(torch.randn(1, 256))
    assert seen == [1]


def test_the_reference_is_not_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_KERNELS", "reference")
    assert not join_layers(build("signs")).is_one_call
