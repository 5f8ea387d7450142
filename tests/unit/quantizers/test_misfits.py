"""Weights that fp16 scales, or one scale a row, cannot say: a warning with numbers, and none for plain ones."""

import pytest
import torch

from tests.battery.cases import gaussian, quantize
from workbench.presets import parse

WEIGHT = 0.02 * gaussian(32, 64)


@pytest.mark.parametrize("power", [-24, -16, 24, 30])
@pytest.mark.parametrize("recipe", ["rtn", "rtn:bits=2", "binary", "ternary"])
def test_weights_beyond_fp16_are_named(power: int, recipe: str) -> None:
    with pytest.warns(UserWarning, match=r"layer 'weight': its weights have a root mean square of .*the weight error is .*2\^"):
        quantize(parse(recipe), WEIGHT * 2.0**power)


@pytest.mark.parametrize("power", [-8, 0, 16])
def test_weights_that_fit_are_not(power: int) -> None:
    expected = quantize(parse("rtn"), WEIGHT).relative_error
    assert quantize(parse("rtn"), WEIGHT * 2.0**power).relative_error == pytest.approx(expected, rel=0.02)


def test_weights_that_are_kept_and_zeros_are_not() -> None:
    assert quantize(parse("none"), WEIGHT * 2.0**-40).relative_error == 0
    assert quantize(parse("rtn"), torch.zeros(8, 16)).relative_error == 0


@pytest.mark.parametrize("preset", ["btc", "parity"])
def test_one_column_that_outweighs_the_others_is_named_with_what_helps(preset: str) -> None:
    w = 0.02 * gaussian(64, 256)
    w[:, 17] *= 100
    moment = torch.eye(256)
    with pytest.warns(UserWarning, match=r"column 17 of 256 holds 98% .* use transform=hadamard, or scales=row-column"):
        assert quantize(parse(preset), w, moment).relative_error > 0.9
    for cure in ("transform=hadamard", "scales=row-column"):
        assert quantize(parse(f"{preset}:{cure}"), w, moment).relative_error < 0.05
