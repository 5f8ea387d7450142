"""Folding: the same function, with what was learned in the gains of norms and neither stored nor run with the layers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import workbench as wb
from workbench.analysis.decisions.online_cost import tabulate_online_cost
from workbench.artifact.quantized_copy import build_packed_copy
from workbench.errors import ModelError
from workbench.kernels.packing.packed import Packed, build_ledger
from workbench.models import ModelHandle, open_model
from workbench.presets.preset import make_part
from workbench.quantized import QuantizedLayer, QuantizedModel
from workbench.quantizers import fold
from workbench.quantizers.learning.basis import BasisState
from workbench.quantizers.transforms.learned import Learned
from workbench.recipe import LayerPlan

READERS = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "o_proj": 1, "gate_proj": 2, "up_proj": 2, "down_proj": 3}


@pytest.fixture(scope="module")
def model(tiny_models: dict[str, Path]) -> ModelHandle:
    return open_model(tiny_models["llama"])


def state(cols: int, seed: int, *, gain: bool) -> BasisState:
    """A diagonal and a rotation far from the identity."""
    draw = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (cols,), generator=draw) * 2.0 - 1
    sides = {
        name: 0.3 * torch.randn(n * (n - 1) // 2, generator=draw) for name, n in zip(("left", "right"), sizes(cols), strict=True)
    }
    gains = (1 + 0.3 * torch.rand(cols, generator=draw)).half() if gain else None
    return BasisState(gains, signs, **{name: side.half() for name, side in sides.items() if side.numel()})


def sizes(cols: int) -> tuple[int, int]:
    return Learned().factors.sizes(cols)


def transformed(model: ModelHandle, *, gain: bool) -> QuantizedModel:
    """Every layer whole, in a learned basis that readers of one input share: the original's function."""
    transform, layers = make_part("transform", "learned"), {}
    recipe = wb.recipe("btc").replace(transform=transform)
    for number, name in enumerate(model.layer_names):
        w = model.weight(name).float()
        own = state(w.shape[1], 10 * (number // 7) + READERS[name.rpartition(".")[2]], gain=gain)
        packed = transform.pack(Packed("dense", *w.shape, {"weight": transform.forward(w, own)}), own)
        layers[name] = QuantizedLayer(name, packed, recipe, build_ledger(packed, 32.0), 0.0)
    return QuantizedModel(model.source, layers, LayerPlan.uniform(recipe))


@pytest.mark.parametrize("gain", [False, True], ids=["signs", "signs-and-gains"])
def test_the_model_computes_the_same(model: ModelHandle, gain: bool) -> None:
    before = transformed(model, gain=gain)
    after, ids = fold(model, before), model.encode("One day a small dog saw a red ball.")
    expected = model.language_model().logits(ids)
    found = build_packed_copy(model, after.layers, after.changed_tensors).logits(ids)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))
    assert not torch.allclose(build_packed_copy(model, after.layers).logits(ids), expected, rtol=0.1), "the gains matter"
    assert set(after.changed_tensors) == {
        f"model.layers.{i}.{norm}_layernorm.weight" for i in (0, 1) for norm in ("input", "post_attention")
    }


def test_folded_signs_are_exact(model: ModelHandle) -> None:
    before = transformed(model, gain=False)
    after = fold(model, before)
    for name, gains in after.changed_tensors.items():
        assert gains.dtype == model.tensor(name).dtype
        assert torch.equal(gains.abs(), model.tensor(name).abs())
        assert (gains.sign() != model.tensor(name).sign()).any()
    z = torch.randn(5, model.weight("model.layers.0.mlp.up_proj").shape[1], dtype=torch.float64)
    key, name = "model.layers.0.post_attention_layernorm.weight", "model.layers.0.mlp.up_proj"
    old, new = (z * gains.double() @ found.layers[name].weight().double().mT for found, gains in (
        (before, model.tensor(key)), (after, after.changed_tensors[key])
    ))  # fmt: skip
    torch.testing.assert_close(new, old, rtol=1e-10, atol=1e-10)


def test_what_is_folded_is_neither_stored_nor_run(model: ModelHandle) -> None:
    before = transformed(model, gain=True)
    after = fold(model, before)
    for name, layer in after.layers.items():
        has = {"signs", "gain"} & layer.packed.tensors.keys()
        assert has == (set() if READERS[name.rpartition(".")[2]] in (0, 2) else {"signs", "gain"})
        assert layer.ledger == build_ledger(layer.packed, layer.nominal_bits)
    assert after.bits_per_weight < before.bits_per_weight
    assert tabulate_online_cost(after).multiply_adds.sum() < tabulate_online_cost(before).multiply_adds.sum()


def test_gains_of_two_bytes_take_signs_only(model: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rounded product would be another function."""
    tensor = ModelHandle.tensor
    monkeypatch.setattr(ModelHandle, "tensor", lambda self, name: tensor(self, name).half())
    after = fold(model, transformed(model, gain=True))
    assert set(after.layers["model.layers.0.mlp.up_proj"].packed.tensors) == {"gain", "left", "right"}
    assert {t.dtype for t in after.changed_tensors.values()} == {torch.float16}


def test_readers_that_differ_stay_as_they_are(model: ModelHandle) -> None:
    before = transformed(model, gain=True)
    name = "model.layers.0.self_attn.k_proj"
    other = before.layers["model.layers.1.self_attn.k_proj"]
    for changed in ({name: other}, {}):
        layers = {key: layer for key, layer in before.layers.items() if key != name} | changed
        after = fold(model, replace(before, layers=layers))
        assert "model.layers.0.input_layernorm.weight" not in after.changed_tensors
        assert after.layers["model.layers.0.self_attn.q_proj"] is layers["model.layers.0.self_attn.q_proj"]
        assert len(after.changed_tensors) == 3


def test_a_hadamard_stays_and_a_bare_diagonal_leaves_nothing(model: ModelHandle) -> None:
    for start, kept in (("hadamard", "rotated"), ("identity", "dense")):
        transform = make_part("transform", "learned", start=start, rotation="none", gain=False)
        before, layers = transformed(model, gain=False), {}
        for name, layer in before.layers.items():
            w = model.weight(name).float()
            own = BasisState(signs=state(w.shape[1], 0, gain=False).signs)
            packed = transform.pack(Packed("dense", *w.shape, {"weight": transform.forward(w, own)}), own)
            layers[name] = replace(layer, packed=packed)
        after = fold(model, replace(before, layers=layers))
        assert after.layers["model.layers.0.mlp.up_proj"].packed.format == kept
        ids = model.encode("One day")
        expected = model.language_model().logits(ids)
        found = build_packed_copy(model, after.layers, after.changed_tensors).logits(ids)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_other_shapes_are_refused(tiny_models: dict[str, Path]) -> None:
    gpt2 = open_model(tiny_models["gpt2"])
    with pytest.raises(ModelError, match="cannot be fused"):
        fold(gpt2, QuantizedModel(gpt2.source, {}, LayerPlan(())))
