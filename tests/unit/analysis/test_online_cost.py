"""What input changes cost: counted from what is stored, zero for what was folded."""

import math

import pytest
import torch

import workbench as wb
from workbench.analysis.decisions.online_cost import tabulate_online_cost
from workbench.analysis.glossary import COLUMNS
from workbench.kernels.formats.transforms import apply_butterflies, count_hadamard_ops
from workbench.kernels.packing.packed import count_stored_bits
from workbench.models import ModelHandle

BLOCK = "*.layers.0.*"


def test_a_hadamard_before_each_layer(builtin: ModelHandle) -> None:
    quantized = wb.quantize_model(builtin, wb.recipe("btc", bits=1, compensation=False, transform="hadamard"), layers=BLOCK)
    table = tabulate_online_cost(quantized)
    assert set(table.columns) <= set(COLUMNS)
    assert list(table["name"]) == list(quantized.layers)
    assert set(table["where"]) == {"online"}
    q, down = (table[table["name"].str.endswith(name)].iloc[0] for name in ("q_proj", "down_proj"))
    assert (q.multiply_adds, down.multiply_adds) == (256 * 8, 768 * (8 + 3))
    assert down.online_share == pytest.approx(768 * 11 / (256 * 768))
    assert q.transform_bits == pytest.approx(256 / 256**2)


def test_rounding_and_transform_are_two_rows_and_bits_are_the_layers(builtin: ModelHandle) -> None:
    recipe = wb.recipe("btc", bits=1, compensation=False, transform="hadamard", activations=8)
    quantized = wb.quantize_model(builtin, recipe, layers="*.0.mlp.up_proj")
    (layer,) = quantized.layers.values()
    table = tabulate_online_cost(quantized)
    assert list(table["transform"]) == ["hadamard", "rounded-input"]
    assert list(table["multiply_adds"]) == [256 * 8, 256]
    stored = sum(count_stored_bits(t) for t in layer.packed.tensors.values())
    assert table["transform_bits"].sum() == pytest.approx(stored / (256 * 768))


def test_what_is_fused_costs_nothing(builtin: ModelHandle) -> None:
    quantized = wb.quantize_model(wb.fuse(builtin), wb.recipe("rtn", bits=2, group=64), layers=BLOCK)
    table = tabulate_online_cost(quantized)
    folded, online = table[table["where"] == "folded"], table[table["where"] == "online"]
    assert len(folded) == 6
    assert not folded[["multiply_adds", "online_share", "transform_bits"]].to_numpy().any()
    assert [name.rpartition(".")[2] for name in online["name"]] == ["down_proj"]


def test_nothing_changed_is_an_empty_table(builtin: ModelHandle) -> None:
    assert tabulate_online_cost(wb.quantize_model(builtin, wb.recipe("rtn"), layers=BLOCK)).empty


@pytest.mark.parametrize("power", [1, 2, 256])
def test_butterflies_take_one_addition_a_pass_and_number(power: int) -> None:
    """Each pass adds or subtracts once for each number; the count is of passes."""
    assert count_hadamard_ops(power) == power * int(math.log2(power))
    unit = torch.eye(power).reshape(power, power, 1)
    assert torch.allclose(apply_butterflies(unit).abs(), torch.full((power, power, 1), power**-0.5))
