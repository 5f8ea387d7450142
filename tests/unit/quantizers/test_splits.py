"""Splits: who is salient, by size or by what removing a weight costs, and what the map takes."""

import pytest
import torch

from tests.battery.cases import correlated, gaussian, quantize
from workbench import registry
from workbench.presets import recipe
from workbench.presets.preset import compose
from workbench.quantizers.curvature import damp_moment
from workbench.quantizers.splits.fitting.weight_saliency import compute_saliency


def test_hessian_saliency_is_what_removing_the_weight_costs_after_repair_by_later_columns() -> None:
    w, h = gaussian(3, 12).double(), correlated(12)
    true = damp_moment(h, 0.01)
    for column in (0, 5, 11):
        later = true[column:, column:]
        cost = w[:, column] ** 2 / torch.linalg.inv(later)[0, 0]
        torch.testing.assert_close(compute_saliency(w, h, "hessian")[:, column], cost, rtol=1e-6, atol=1e-9)


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


def test_widest_groups_are_those_with_the_largest_range() -> None:
    w = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    # the last group of a row is shorter
    rest, wide = registry.make("split", "widest-groups", share=0.25, group=16).masks(w, None)
    assert torch.equal(rest, ~wide)
    groups = {(row, start): w[row, start : start + 16] for row in range(6) for start in (0, 16, 32)}
    ranges = {place: float(group.max() - group.min()) for place, group in groups.items()}
    chosen = {(row, start) for row, start in ranges if bool(wide[row, start])}
    assert chosen == set(sorted(ranges, key=lambda place: -ranges[place])[: round(0.25 * 18)])
    assert all(bool(wide[row, start : start + 16].all()) == bool(wide[row, start : start + 16].any()) for row, start in ranges)


def test_range_mixed_stores_one_flag_a_group_and_beats_its_narrow_grid() -> None:
    w = torch.randn(16, 128, generator=torch.Generator().manual_seed(0))
    w[::4] *= 5
    mixed, narrow = quantize(recipe("range-mixed"), w), quantize(recipe("rtn", bits=2, group=64), w)
    flags = next(entry for entry in mixed.ledger.entries if "owns" in entry.why)
    assert flags.bits == 16 * 2
    assert mixed.nominal_bits == pytest.approx(2.5)
    assert mixed.relative_error < narrow.relative_error / 3
