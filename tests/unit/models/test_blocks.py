"""Blocks run one by one give what the whole model gives, in every family, with one block's weights in memory."""

from pathlib import Path

import pytest
import torch

from tests.tiny_models import FAMILIES
from workbench.models import open_model
from workbench.models.block_pass import extract_hidden_states
from workbench.models.blocks import BlockRow

IDS = torch.arange(3, 40)[None]


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_in_a_row_are_the_model(tiny_models: dict[str, Path], family: str) -> None:
    model = open_model(tiny_models[family])
    seen = {}
    row = BlockRow(model)
    hooks = [
        model.module.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name in row.names
    ]
    with torch.no_grad():
        model.module(IDS)
    for hook in hooks:
        hook.remove()
    text = row.start([IDS])
    with torch.no_grad():
        for index in row.visit(text):
            with row.block(index) as block:
                outputs = [call.outputs(block) for call in text.calls]
            torch.testing.assert_close(
                extract_hidden_states(outputs[0]), extract_hidden_states(seen[row.names[index]]), rtol=1e-5, atol=1e-5
            )
            text.advance(outputs)
    assert text.block is None
    assert sum(len(layers) for layers in row.layers) == len(model.layer_names)


def test_only_the_block_at_work_has_weights(tiny_models: dict[str, Path]) -> None:
    row = BlockRow(open_model(tiny_models["llama"]))
    first, second = row.layers
    with row.block(0):
        assert not any(row._module.get_submodule(name).weight.is_meta for name in first)
        assert all(row._module.get_submodule(name).weight.is_meta for name in second)
    assert all(row._module.get_submodule(name).weight.is_meta for name in first)


def test_replaced_weights_carry_gradients_and_leave_the_block_alone(tiny_models: dict[str, Path]) -> None:
    row = BlockRow(open_model(tiny_models["llama"]))
    (call,) = row.start([IDS]).calls
    layer = row.layers[0][-1]
    with row.block(0) as block:
        before = call.run(block)
        weight = (2 * row.model.weight(layer)).requires_grad_()
        changed = call.run(block, weights={f"{row.within(0, layer)}.weight": weight})
        changed.sum().backward()
        assert weight.grad is not None
        assert not torch.allclose(changed, before)
        torch.testing.assert_close(call.run(block), before)
