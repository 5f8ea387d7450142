"""Ternary weights: the best size by trying every one, sums of trits by brute force, and the papers' forms."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.battery.cases import correlated, gaussian, quantize
from workbench import presets, registry
from workbench.kernels.formats.ternary import choose_nearest_trits
from workbench.presets.preset import compose
from workbench.quantizers.coders.ternary import compute_best_size


@given(st.integers(0, 1000), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_the_best_size_beats_every_other_choice_of_weights(seed: int, cols: int) -> None:
    w = gaussian(3, cols, seed)
    found = compute_best_size(w)
    for row, size in zip(w, found, strict=True):
        own = (row - size * choose_nearest_trits(row[None], size.view(1, 1, 1))[0, 0]).square().sum()
        for kept in itertools.product((0.0, 1.0), repeat=min(cols, 8)):
            mask = torch.tensor([*kept, *[1.0] * (cols - len(kept))])
            if mask.any():
                other = (row.abs() * mask).sum() / mask.sum()
                assert own <= (row - other * row.sign() * mask).square().sum() * (1 + 1e-5) + 1e-6


@pytest.mark.parametrize("planes", [1, 2, 3])
def test_trits_are_the_nearest_sum(planes: int) -> None:
    w, size = gaussian(4, 30), torch.tensor([1.1, -0.4, 0.15])[:planes, None, None].expand(-1, 4, 1)
    values = (choose_nearest_trits(w, size) * size).sum(0)
    options = torch.stack(
        [sum(t * s for t, s in zip(c, size, strict=True)) for c in itertools.product((-1, 0, 1), repeat=planes)]
    )
    torch.testing.assert_close((values - w).abs(), (options[..., 0][..., None] - w).abs().amin(0))


def test_of_two_equally_near_sums_the_sparser_one_is_taken() -> None:
    assert choose_nearest_trits(torch.tensor([[0.0, 0.5, 1.0]]), torch.ones(2, 1, 1)).abs().sum(0).tolist() == [[0, 0, 1]]


def test_absmean_without_sweeps_is_the_rounding_of_bitnet() -> None:
    w = gaussian(6, 128)
    found = quantize(presets.recipe("ternary", rule="absmean", sweeps=0), w).packed
    scale = w.abs().mean(1, keepdim=True)
    torch.testing.assert_close(
        registry.find("format", "ternary").decode(found).sign(), (w / scale.half().float()).round().clamp(-1, 1)
    )


def test_a_plane_takes_1_6_bits_and_its_scales() -> None:
    layer = quantize(compose(registry.make("coder", "ternary", planes=2, group=64)), gaussian(16, 320))
    assert layer.bits_per_weight == 2 * (1.6 + 16 / 64)


def test_sweeps_lower_the_error() -> None:
    w = gaussian(32, 256)
    first, refined = (quantize(compose(registry.make("coder", "ternary", planes=2, sweeps=n)), w).error for n in (0, 15))
    assert refined < 0.95 * first


def test_compensation_lowers_the_output_error() -> None:
    w, moment = gaussian(32, 256), correlated(256)
    plain, fed = (quantize(presets.recipe("ternary", compensation=on), w, moment).output_error for on in (False, True))
    assert fed < 0.8 * plain
