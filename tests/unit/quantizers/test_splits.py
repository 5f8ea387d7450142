"""Splits: who is salient, by size or by what removing a weight costs, and what the map takes."""

import pytest
import torch

from tests.battery.cases import correlated, gaussian, quantize
from workbench import registry
from workbench.presets.preset import compose
from workbench.quantizers.curvature import damped
from workbench.quantizers.splits.saliency import saliency


def test_hessian_saliency_is_what_removing_the_weight_costs_after_repair_by_later_columns() -> None:
    w, h = gaussian(3, 12).double(), correlated(12)
    true = damped(h, 0.01)
    for column in (0, 5, 11):
        later = true[column:, column:]
        cost = w[:, column] ** 2 / torch.linalg.inv(later)[0, 0]
        torch.testing.assert_close(saliency(w, h, "hessian")[:, column], cost, rtol=1e-6, atol=1e-9)


def test_the_largest_weights_are_chosen_exactly() -> None:
    w = gaussian(10, 30)
    rest, top = registry.make("split", "top-elements", share=0.1).masks(w, None)
    assert top.sum() == 30
    assert w[top].abs().min() >= w[rest].abs().max()


def test_ties_are_settled_by_place() -> None:
    _, top = registry.make("split", "top-elements", share=0.25).masks(torch.ones(2, 8), None)
    assert top.nonzero().tolist() == [[0, 0], [0, 1], [0, 2], [0, 3]]


def test_strong_inputs_make_columns_salient() -> None:
    w, h = torch.ones(4, 10), torch.diag(torch.arange(1.0, 11.0))
    rest, top = registry.make("split", "salient-columns", share=0.3, metric="hessian").masks(w, h)
    assert top[0].nonzero()[:, 0].tolist() == [7, 8, 9]
    assert torch.equal(rest, ~top)


@pytest.mark.parametrize(("split", "bits"), [("top-elements", 20 * 40), ("salient-columns", 40)])
def test_the_map_takes_a_bit_a_weight_or_a_bit_a_column(split: str, bits: int) -> None:
    coders = [registry.make("coder", "uniform", bits=b) for b in (2, 8)]
    result = quantize(compose(*coders, split=registry.make("split", split, share=0.1)), gaussian(20, 40))
    assert {e.item: e.bits for e in result.ledger.entries}["masked map"] == bits
    assert result.nominal_bits == pytest.approx(0.9 * 2 + 0.1 * 8)


def test_each_coder_owns_its_weights() -> None:
    split = registry.make("split", "top-elements", share=0.2)
    w = gaussian(20, 40)
    result = quantize(compose(registry.make("coder", "sign"), registry.make("coder", "keep"), split=split), w).weight()
    _, top = split.masks(w, None)
    assert torch.equal(result[top], w[top])
    assert not torch.isclose(result[~top], w[~top], rtol=1e-3).all()
