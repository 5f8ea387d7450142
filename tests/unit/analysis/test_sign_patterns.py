"""Sign patterns, codeword use and flipped signs against counting by hand, and the bound at its known points."""

import dataclasses

import pytest
import torch
from torch import Tensor

from tests.battery.cases import correlated, gaussian, quantize
from workbench.analysis.method import sign_patterns as codebook
from workbench.errors import ShapeError
from workbench.kernels import formats
from workbench.kernels.packing.packed import Packed
from workbench.presets.preset import compose, make_part
from workbench.quantizers.contract import Transform


def test_patterns_are_counted_and_written() -> None:
    weight = torch.tensor([[1.0, -1.0, 2.0, -2.0, 1.0], [1.0, 1.0, 0.0, -1.0, 1.0]])
    found = codebook.count_sign_patterns(weight, 2)
    assert found.table.to_dict("list") == {"rank": [1, 2], "pattern": ["+−", "++"], "count": [3, 1], "share": [0.75, 0.25]}
    assert (found.vectors, found.distinct, found.even_share) == (4, 2, 0.25)


def test_coin_flips_have_one_bit_a_sign_and_repeated_rows_less() -> None:
    random = gaussian(512, 800)
    assert codebook.count_sign_patterns(random, 8).entropy_per_sign == pytest.approx(1, abs=0.002)
    planted = gaussian(4, 8).sign()[torch.randint(4, (4096,), generator=torch.Generator().manual_seed(0))].view(512, 64)
    assert codebook.count_sign_patterns(planted, 8).entropy == pytest.approx(2, abs=0.01)
    assert codebook.count_sign_patterns(torch.ones(4, 64), 8).entropy == 0


def test_patterns_longer_than_a_row_are_a_mistake() -> None:
    with pytest.raises(ShapeError, match="patterns of 25 signs in rows of 100 columns; use 1 to 24 signs"):
        codebook.count_sign_patterns(gaussian(2, 100), 25)


def test_usage_counts_every_vector_once() -> None:
    result = quantize(compose(make_part("coder", "binary-codebook", length=8, entries=16)), gaussian(20, 100))
    ((_, node),) = codebook.iterate_codebooks(result.packed)
    table = codebook.tabulate_usage(node)
    assert table["count"].sum() == 20 * 13
    assert table["count"].is_monotonic_decreasing
    assert sorted(table["codeword"]) == list(range(16))
    assert table["share"].sum() == pytest.approx(1)


def test_dead_codewords_are_those_that_no_vector_uses() -> None:
    w = torch.ones(8, 64)
    found = codebook.tabulate_codebooks(
        quantize(compose(make_part("coder", "binary-codebook", length=8, entries=16)), w).packed, w
    )
    assert found.loc[0, ["used", "dead", "index_entropy", "flip_rate"]].tolist() == [1, 15, 0, 0]


@pytest.mark.parametrize("mean", [False, True], ids=["plain", "mean"])
def test_flips_are_the_signs_that_differ_and_stay_above_the_bound(mean: bool) -> None:
    w = gaussian(64, 480)
    coder = make_part("coder", "binary-codebook", length=10, entries=256, assignment="hamming", mean=mean, rescale=False)
    result = quantize(compose(coder), w)
    row = codebook.tabulate_codebooks(result.packed, w).loc[0]
    assert row["flip_rate"] == pytest.approx(0.075, abs=0.015)
    assert row["flip_rate"] > row["flip_bound"]
    if not mean:
        differing = ((result.weight() > 0) != (w >= 0)).float().mean().item()
        assert row["flip_rate"] == pytest.approx(differing)


@pytest.mark.parametrize("transform", ["permutation", "column-scale", "hadamard", "learned"])
def test_flips_are_counted_in_the_basis_that_is_coded(transform: str) -> None:
    w, h = gaussian(48, 160), correlated(160)
    coder = make_part("coder", "binary-codebook", length=8, entries=64)
    change = make_part("transform", transform, **({"steps": 10} if transform == "learned" else {}))
    packed = quantize(compose(coder, transform=change), w, h).packed
    inner, changed = coded_by_hand(change, packed, w)
    assert codebook.tabulate_codebooks(packed, w).loc[0, "flip_rate"] == codebook.compute_flip_rate(changed, inner)
    assert codebook.tabulate_codebooks(packed, w).loc[0, "flip_rate"] < 0.35, "in the wrong basis half of the signs differ"


def coded_by_hand(change: Transform, packed: Packed, w: Tensor) -> tuple[Packed, Tensor]:
    """The node inside the transform, and W' as W times the matrix that the transform is (identity rows, undone)."""
    (inner,) = packed.children
    dense = Packed("dense", packed.cols, packed.cols, {"weight": torch.eye(packed.cols)})
    back = formats.decode(dataclasses.replace(packed, rows=packed.cols, children=(dense,)))
    return inner, torch.linalg.solve(back.double(), w.double(), left=False).float()


def test_a_second_plane_flips_signs_of_what_the_first_leaves() -> None:
    w = gaussian(48, 160)
    packed = quantize(compose(make_part("coder", "codebook-planes", length=8, entries=64)), w).packed
    first, second = packed.children
    expected = [codebook.compute_flip_rate(w, first), codebook.compute_flip_rate(w - formats.decode(first), second)]
    assert codebook.tabulate_codebooks(packed, w)["flip_rate"].tolist() == expected


@pytest.mark.parametrize(("rate", "share"), [(1.0, 0.0), (0.9, 0.013), (0.8, 0.031), (0.7, 0.053), (0.0, 0.5)])
def test_the_bound_at_known_rates(rate: float, share: float) -> None:
    assert codebook.compute_flip_bound(rate) == pytest.approx(share, abs=5e-4)
    if 0 < rate < 1:
        assert 1 - codebook.binary_entropy(codebook.compute_flip_bound(rate)) == pytest.approx(rate, abs=1e-9)


def test_a_weight_of_another_shape_is_a_mistake() -> None:
    packed = quantize(compose(make_part("coder", "binary-codebook")), gaussian(8, 60)).packed
    with pytest.raises(ShapeError, match=r"a weight of shape \[8, 61\] does not fit codes of \[8, 60\]"):
        codebook.tabulate_codebooks(packed, gaussian(8, 61))
