"""The ledger: totals, shares, merging, and a round trip through JSON."""

import json

import pytest

from workbench.bits import BitEntry, BitLedger

LEDGER = BitLedger((BitEntry("codes", 100, "one a weight"), BitEntry("scale", 60, "one a row", shared_by=3)), 80, 1.0)


def test_bits_per_weight_counts_every_item() -> None:
    assert LEDGER.total_bits == 160
    assert LEDGER.bits_per_weight == 2.0


def test_the_table_has_one_row_an_item() -> None:
    table = LEDGER.table()
    assert list(table.columns) == ["item", "bits", "bits_per_weight", "share", "shared_by", "why"]
    assert table["bits_per_weight"].tolist() == [1.25, 0.75]
    assert table["share"].tolist() == [0.625, 0.375]
    assert table["shared_by"].tolist() == [1, 3]


def test_an_empty_table_keeps_its_columns() -> None:
    assert list(BitLedger((), 5, 0.0).table().columns) == list(LEDGER.table().columns)
    assert BitLedger((), 5, 0.0).bits_per_weight == 0


def test_json_brings_it_back() -> None:
    document = json.loads(json.dumps(LEDGER.to_dict()))
    assert BitLedger.from_dict(document) == LEDGER
    assert document["bits_per_weight"] == 2.0


def test_merging_adds_items_and_averages_nominal_bits_over_weights() -> None:
    other = BitLedger((BitEntry("codes", 20, "one a weight"), BitEntry("mean", 4, "one a row")), 20, 3.0)
    both = BitLedger.merge([LEDGER, other])
    assert {entry.item: entry.bits for entry in both.entries} == {"codes": 120, "scale": 60, "mean": 4}
    assert (both.weights, both.total_bits) == (100, 184)
    assert both.nominal_bits == pytest.approx(1.4)


def test_the_nominal_bits_of_equal_layers_are_theirs() -> None:
    layers = [BitLedger((), weights, 0.8) for weights in (65536, 65536, 65536)]
    assert BitLedger.merge(layers).nominal_bits == 0.8


def test_parts_of_a_shared_item_add_up_to_the_whole() -> None:
    part = BitLedger((BitEntry("codebook", 100 / 3, "shared", shared_by=3),), 10, 1.0)
    assert BitLedger.merge([part] * 3).total_bits == pytest.approx(100)


def test_merging_nothing_is_an_empty_ledger() -> None:
    assert BitLedger.merge([]) == BitLedger((), 0, 0.0)
