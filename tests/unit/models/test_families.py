"""Every supported family: the layer table, weights as the running module has them, swapping one layer and back."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.tiny_models import CAUSAL, FAMILIES
from workbench.models import ModelHandle, open_model

MATRICES = {
    "llama": [
        "self_attn.q_proj",
        "self_attn.k_proj",
        "self_attn.v_proj",
        "self_attn.o_proj",
        "mlp.gate_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ],
    "opt": ["self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj", "fc1", "fc2"],
    "gpt2": ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
    "bert": [
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ],
}
PREFIX = {"opt": "model.decoder.layers", "gpt2": "transformer.h", "bert": "encoder.layer"}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(family: str, tiny_models: dict[str, Path]) -> ModelHandle:
    return open_model(tiny_models[family])


def outputs(model: ModelHandle, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.module(ids)[0].clone()


def test_the_table_lists_the_linear_layers_of_both_blocks(model: ModelHandle, family: str) -> None:
    table = model.layers()
    matrices = MATRICES.get(family, MATRICES["llama"])
    prefix = PREFIX.get(family, "model.layers")
    assert set(table.name) == {f"{prefix}.{block}.{matrix}" for block in (0, 1) for matrix in matrices}
    assert list(table.columns) == ["name", "block", "matrix", "rows", "cols", "dtype", "stored_bits", "parameters"]
    assert sorted(table.block.unique()) == [0, 1]
    assert set(table.dtype) == {"float32"}
    assert set(table.stored_bits) == {32.0}
    assert (table.parameters == table.rows * table.cols).all()


def test_each_weight_is_the_map_that_the_running_layer_applies(model: ModelHandle) -> None:
    for row in model.layers().itertuples():
        weight, layer = model.weight(row.name), model.module.get_submodule(row.name)
        assert weight.shape == (row.rows, row.cols)
        x = torch.randn(3, row.cols, generator=torch.Generator().manual_seed(1))
        bias = model.bias(row.name)
        torch.testing.assert_close(nn.functional.linear(x, weight, bias), layer(x))


def test_a_swapped_weight_changes_the_output_and_comes_back_bit_for_bit(model: ModelHandle) -> None:
    ids = torch.arange(3, 23)[None]
    name = model.layer_names[-1]
    before, parameter = outputs(model, ids), model.module.get_submodule(name).weight
    with model.swapped({name: torch.zeros_like(model.weight(name))}):
        assert not torch.equal(outputs(model, ids), before)
    assert model.module.get_submodule(name).weight is parameter
    assert torch.equal(outputs(model, ids), before)


def test_swapping_in_the_same_weight_or_an_equal_module_changes_nothing(model: ModelHandle) -> None:
    ids = torch.arange(3, 23)[None]
    before = outputs(model, ids)
    name = model.layer_names[0]
    weight, bias = model.weight(name), model.bias(name)
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    linear.weight.data.copy_(weight)
    if bias is not None:
        linear.bias.data.copy_(bias)
    for same in (weight, linear):
        with model.swapped({name: same}):
            torch.testing.assert_close(outputs(model, ids), before)


@pytest.mark.parametrize("family", CAUSAL, indirect=True)
def test_cached_generation_agrees_with_full_passes(model: ModelHandle) -> None:
    lm = model.language_model()
    ids = lm.encode("Tom had a red")
    for _ in range(5):
        ids = torch.cat([ids, lm.logits(ids)[:, -1].argmax(-1, keepdim=True)], 1)
        if int(ids[0, -1]) in (1, 2):
            break
    assert lm.generate("Tom had a red", tokens=5).startswith(lm.decode([i for i in ids[0].tolist() if i > 2]))
