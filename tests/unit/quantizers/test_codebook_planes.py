"""Planes with and without codebooks: what they decode to, that more of them help, and the two magnitudes that two planes are."""

import pytest
import torch

from tests.battery.cases import correlated, gaussian, quantize
from workbench import registry
from workbench.errors import RecipeError
from workbench.kernels import formats
from workbench.presets.preset import compose, make_part


def test_two_magnitudes_are_a_plane_of_codewords_and_a_plane_of_bits() -> None:
    """Signs from 16 planted codewords, each weight with one of two magnitudes: coded without loss."""
    words = gaussian(16, 8).sign()
    index = torch.randint(16, (96, 20), generator=torch.Generator().manual_seed(1))
    large = gaussian(96, 160, 2) > 0
    w = words[index].reshape(96, -1) * torch.where(large, 1.5, 0.5)
    coder = make_part("coder", "codebook-planes", length=8, entries=16, indexed=1, assignment="hamming")
    result = quantize(compose(coder), w)
    assert result.relative_error < 1e-6
    first, second = (formats.decode(child) for child in result.packed.children)
    torch.testing.assert_close(first.abs(), torch.ones(96, 160))
    assert torch.equal((first * second) > 0, large)


@pytest.mark.parametrize("calibrated", [False, True], ids=["plain", "calibrated"])
def test_more_planes_lower_the_error(calibrated: bool) -> None:
    w, h = gaussian(64, 240), correlated(240) if calibrated else None
    one = quantize(compose(make_part("coder", "binary-codebook", length=8, entries=64)), w, h)
    coders = (make_part("coder", "codebook-planes", length=8, entries=64, planes=p, indexed=p) for p in (2, 3))
    two, three = (quantize(compose(coder), w, h) for coder in coders)
    assert one.error > 1.3 * two.error > 1.6 * three.error
    assert one.bits_per_weight < two.bits_per_weight < three.bits_per_weight


def test_a_plane_of_bits_beats_a_plane_of_codewords_and_costs_more() -> None:
    w = gaussian(64, 240)
    words, bits = (quantize(compose(make_part("coder", "codebook-planes", length=8, entries=64, indexed=n)), w) for n in (2, 1))
    assert bits.relative_error < words.relative_error
    assert bits.bits_per_weight > words.bits_per_weight
    assert (words.nominal_bits, bits.nominal_bits) == (pytest.approx(2 * 6 / 8), pytest.approx(6 / 8))


def test_codebooks_differ_between_planes_and_are_shared_by_layers() -> None:
    packed = quantize(compose(make_part("coder", "codebook-planes")), gaussian(64, 240)).packed.share("scope", 3)
    first, second = packed.children
    assert not torch.equal(first.tensors["codebook"], second.tensors["codebook"])
    assert [child.shared["codebook"] for child in packed.children] == [("scope/0.codebook", 3), ("scope/1.codebook", 3)]


def test_more_codebooks_than_planes_is_a_mistake() -> None:
    with pytest.raises(RecipeError, match="3 of 2 planes cannot have a codebook; use indexed=2 at most"):
        registry.make("coder", "codebook-planes", planes=2, indexed=3)
