"""Uniform grids against the formulas written out for one group, and the sizes a group may have."""

import pytest
import torch
from torch import Tensor

from tests.battery.cases import correlated, gaussian, quantize
from workbench import registry
from workbench.errors import RecipeError, ShapeError
from workbench.presets.preset import compose
from workbench.quantizers.coders.fitting.column_groups import compute_group_span


def round_group(w: Tensor, bits: int, symmetric: bool, share: float = 1.0) -> Tensor:
    """One group `[n]`, in plain words of the method."""
    if symmetric:
        scale = (w.abs().max() * share / (2 ** (bits - 1) - 1)).half().float()
        return scale * (w / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    low, high = min(float(w.min()), 0.0) * share, max(float(w.max()), 0.0) * share
    scale = torch.tensor((high - low) / (2**bits - 1)).half().float()
    zero = torch.round(-low / scale).clamp(0, 2**bits - 1)
    return scale * (torch.clamp((w / scale).round() + zero, 0, 2**bits - 1) - zero)


@pytest.mark.parametrize("symmetric", [False, True], ids=["asymmetric", "symmetric"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("group", [32, 64, 0], ids="group-{}".format)
def test_values_follow_the_formula(bits: int, symmetric: bool, group: int) -> None:
    w = gaussian(6, 172) + 0.5
    found = quantize(compose(registry.make("coder", "uniform", bits=bits, group=group, symmetric=symmetric)), w).weight()
    for r in range(6):
        for start in range(0, 172, group or 172):
            piece = slice(start, start + (group or 172))
            torch.testing.assert_close(found[r, piece], round_group(w[r, piece], bits, symmetric), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("sign", [1, -1])
def test_zero_is_always_inside_the_range(sign: int) -> None:
    w = sign * torch.linspace(5, 6, 32)[None]
    result = quantize(compose(registry.make("coder", "uniform", bits=4)), w)
    assert result.packed.tensors["scale"].item() == pytest.approx(6 / 15, rel=1e-3)
    assert (result.weight() - w).abs().max() <= 6 / 15 / 2 * 1.001


@pytest.mark.parametrize("symmetric", [False, True], ids=["asymmetric", "symmetric"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_the_search_is_better_than_the_best_share_of_the_whole_range(bits: int, symmetric: bool) -> None:
    """GPTQ's grid search, written out: of ranges that shrink from both ends."""
    w = gaussian(16, 64)
    part = registry.make("coder", "uniform", bits=bits, group=64, clip="mse", symmetric=symmetric)
    lost = (quantize(compose(part), w).weight() - w).square().sum(1)
    shares = [torch.stack([round_group(row, bits, symmetric, share / 100) for row in w]) for share in range(100, 18, -2)]
    tried = torch.stack([(values - w).square().sum(1) for values in shares]).amin(0)
    assert lost.sum() < tried.sum() * (0.99 if bits == 2 or symmetric else 1.002)
    assert (lost < 1.03 * tried).all()


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("codes", [(-1, 0, 1), (-1, 1)], ids=["ternary", "binary"])
def test_grids_wider_than_the_weights_bring_them_back(bits: int, codes: tuple[int, ...]) -> None:
    """A code that no weight needs; the whole range, or less of it, has no step of this size."""
    w = torch.tensor(codes)[torch.randint(len(codes), (8, 128), generator=torch.Generator().manual_seed(5))] * 0.0371
    searched, whole = (quantize(compose(registry.make("coder", "uniform", bits=bits, clip=clip)), w) for clip in ("mse", "none"))
    assert searched.relative_error < 1e-6
    assert whole.relative_error > 1e-3


def test_a_symmetric_grid_may_be_turned_around() -> None:
    """Q4_0: codes −8 … 7 times a scale whose sign puts the largest weight, here positive, at −8."""
    codes = torch.randint(-8, 8, (8, 32), generator=torch.Generator().manual_seed(0))
    codes[:, 0] = -8
    result = quantize(compose(registry.make("coder", "uniform", bits=4, group=32, symmetric=True, clip="mse")), codes * -0.03125)
    assert result.relative_error == 0
    assert (result.packed.tensors["scale"] < 0).all()


def test_clip_search_by_moment_serves_the_output() -> None:
    w, h = gaussian(64, 128), torch.diag(torch.linspace(0.01, 10, 128) ** 2)
    plain, weighted = (
        quantize(compose(registry.make("coder", "uniform", bits=2, clip=clip)), w, h) for clip in ("mse", "moment")
    )
    assert weighted.output_error is not None
    assert plain.output_error is not None
    assert weighted.output_error < plain.output_error
    assert weighted.relative_error > plain.relative_error


def test_only_masked_weights_set_the_range() -> None:
    w = gaussian(4, 64)
    w[:, 0] = 1000
    mask = torch.ones_like(w, dtype=torch.bool)
    mask[:, 0] = False
    params = registry.make("coder", "uniform").fit(w, mask, None, None).params
    assert params.scale.max() < 1


@pytest.mark.parametrize(
    ("group", "cols", "span"),
    [(0, 100, 100), (128, 4096, 128), (128, 100, 100), (7, 14, 7), (64, 172, 64), (100, 200, 100), (8, 12, 8)],
)
def test_groups_that_fit(group: int, cols: int, span: int) -> None:
    assert compute_group_span(group, cols) == span


def test_a_group_that_fits_nowhere_names_those_that_do() -> None:
    with pytest.raises(ShapeError, match=r"group size 7 does not divide 4096 columns; use 8, 16, 32, 64, 128, 256 or 0 for"):
        quantize(compose(registry.make("coder", "uniform", group=7)), gaussian(1, 4096))


def test_a_symmetric_bit_is_a_mistake() -> None:
    with pytest.raises(RecipeError, match="symmetric grid of 1 bit has no step; use symmetric=False or coder 'sign'"):
        registry.make("coder", "uniform", bits=1, symmetric=True)


def test_feedback_makes_an_expensive_error_cheap() -> None:
    """GPTQ's reason to exist: rounding errors of inputs that vary together cancel."""
    w, h = gaussian(64, 256), correlated(256)
    nearest, gptq = (
        quantize(compose(registry.make("coder", "uniform", bits=3), assignment=registry.make("assignment", how)), w, h)
        for how in ("nearest", "column-feedback")
    )
    assert gptq.error < 0.7 * nearest.error
    assert gptq.relative_error > nearest.relative_error
