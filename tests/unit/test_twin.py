"""The twin: a second running model that shares the original's memory and leaves it as it was."""

from pathlib import Path

import pytest
import torch

import workbench as wb
from workbench.artifact.quantized_copy import build_packed_copy
from workbench.errors import ModelError
from workbench.models import ModelHandle
from workbench.quantized import QuantizedLayer

LAYERS = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"]
PROMPT = "One day a small dog saw a red ball in the garden."


@pytest.fixture(scope="module")
def model(tiny_models: dict[str, Path]) -> ModelHandle:
    return wb.open_model(tiny_models["llama"])


@pytest.fixture(scope="module")
def layers(model: ModelHandle) -> dict[str, QuantizedLayer]:
    return {name: wb.quantize(model, name, wb.recipe("rtn", bits=2, group=32)) for name in LAYERS}


def test_everything_but_the_packed_layers_is_the_same_memory(model: ModelHandle, layers: dict[str, QuantizedLayer]) -> None:
    original = dict(model.language_model().module.named_parameters())
    copied = dict(build_packed_copy(model, layers).module.named_parameters())
    assert set(original) - set(copied) == {f"{name}.weight" for name in LAYERS}
    assert set(copied) <= set(original)
    assert all(copied[name].data_ptr() == original[name].data_ptr() for name in copied)


def test_the_original_keeps_its_logits_bit_for_bit(model: ModelHandle, layers: dict[str, QuantizedLayer]) -> None:
    original = model.language_model()
    ids = original.encode(PROMPT)
    before = original.logits(ids)
    second = build_packed_copy(model, layers)
    assert not torch.equal(second.logits(ids), before), "2 bits must show"
    torch.testing.assert_close(original.logits(ids), before, rtol=0, atol=0)


@pytest.mark.parametrize("cache", ["decoded", "none"])
def test_its_logits_are_those_of_the_decoded_weights(model: ModelHandle, layers: dict[str, QuantizedLayer], cache: str) -> None:
    original = model.language_model()
    ids = original.encode(PROMPT)
    with model.swapped({name: layer.weight() for name, layer in layers.items()}):
        expected = original.logits(ids)
    # compiled sums are exact to 2e-4 a layer
    assert (build_packed_copy(model, layers, cache=cache).logits(ids) - expected).norm() < 1e-3 * expected.norm()


def test_nothing_quantized_is_the_original(model: ModelHandle) -> None:
    ids = model.language_model().encode(PROMPT)
    torch.testing.assert_close(build_packed_copy(model, {}).logits(ids), model.language_model().logits(ids), rtol=0, atol=0)


def test_changed_tensors_replace_the_models_own_in_the_twin_only(model: ModelHandle, layers: dict[str, QuantizedLayer]) -> None:
    original = model.language_model()
    ids = original.encode(PROMPT)
    before, norm = original.logits(ids), "model.norm.weight"
    doubled = {norm: 2 * original.module.get_parameter(norm)}
    second = build_packed_copy(model, layers, doubled)
    torch.testing.assert_close(second.logits(ids), 2 * build_packed_copy(model, layers).logits(ids), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(original.logits(ids), before, rtol=0, atol=0)


def test_a_tied_tensor_follows_its_source_unless_it_is_given_too(tiny_models: dict[str, Path]) -> None:
    model = wb.open_model(tiny_models["gpt2"])
    embedding = model.module.get_parameter("transformer.wte.weight")
    assert embedding is model.module.get_parameter("lm_head.weight")
    followed = build_packed_copy(model, {}, {"transformer.wte.weight": 2 * embedding}).module
    assert followed.get_parameter("lm_head.weight") is followed.get_parameter("transformer.wte.weight")
    apart = build_packed_copy(model, {}, {"lm_head.weight": 3 * embedding}).module
    assert torch.equal(apart.get_parameter("lm_head.weight"), 3 * embedding)
    assert apart.get_parameter("transformer.wte.weight") is embedding


def test_a_conv1d_model_takes_packed_layers_too(tiny_models: dict[str, Path]) -> None:
    model = wb.open_model(tiny_models["gpt2"])
    name = model.layer_names[0]
    layer = wb.quantize(model, name, wb.recipe("rtn", bits=3, group=32))
    ids = model.language_model().encode(PROMPT)
    with model.swapped({name: layer.weight()}):
        expected = model.language_model().logits(ids)
    assert (build_packed_copy(model, {name: layer}).logits(ids) - expected).norm() < 1e-3 * expected.norm()


def test_an_unknown_layer_is_named(model: ModelHandle, layers: dict[str, QuantizedLayer]) -> None:
    with pytest.raises(ModelError, match="no_such_layer"):
        build_packed_copy(model, {"no_such_layer": layers[LAYERS[0]]})


def test_an_encoder_cannot_write(tiny_models: dict[str, Path]) -> None:
    model = wb.open_model(tiny_models["bert"])
    with pytest.raises(ModelError, match="cannot write text|encoder|language model"):
        build_packed_copy(model, {})


def test_rounded_inputs_show_in_the_twin_and_in_what_if(model: ModelHandle) -> None:
    ids = model.language_model().encode(PROMPT)
    plain, rounded = (
        {name: wb.quantize(model, name, wb.recipe("btc", bits=1, compensation=False, activations=bits)) for name in LAYERS}
        for bits in (16, 4)
    )
    for name in LAYERS:
        assert torch.equal(plain[name].weight(), rounded[name].weight())
    assert not torch.allclose(
        build_packed_copy(model, rounded).logits(ids), build_packed_copy(model, plain).logits(ids), rtol=1e-3
    )
    text = wb.text("evaluation")
    kept, cut = (wb.what_if(model, LAYERS[1], layers[LAYERS[1]], text, tokens=64).kl for layers in (plain, rounded))
    assert kept != pytest.approx(cut, rel=1e-3)
