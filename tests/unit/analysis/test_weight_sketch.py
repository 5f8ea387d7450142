"""Sketches, histograms, rasters and levels agree with brute force, and notice a single changed weight."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

import workbench as wb
from workbench.analysis.weights import weight_sketch
from workbench.errors import ShapeError
from workbench.models import ModelHandle
from workbench.quantized import QuantizedLayer

LAYER = "model.layers.0.self_attn.q_proj"


def heavy(rows: int, cols: int, seed: int = 0) -> Tensor:
    """A matrix with heavy tails, as weights have them."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, cols, generator=generator) ** 3 * 0.02 + 0.001


@pytest.fixture(params=[weight_sketch.WEIGHTS_AT_ONCE, 1000], ids=["one-block", "many-blocks"])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways through the matrix: at once, and in row blocks whose edges fit nothing."""
    monkeypatch.setattr(weight_sketch, "WEIGHTS_AT_ONCE", request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_moments_are_those_of_numpy_and_scipy(block: None, dtype: torch.dtype) -> None:
    weight = heavy(37, 211).to(dtype)
    sketch, plain = weight_sketch.compute_sketch(weight), weight.double().numpy()
    assert (sketch.rows, sketch.cols) == (37, 211)
    assert sketch.mean == pytest.approx(plain.mean(), rel=1e-9)
    assert sketch.std == pytest.approx(plain.std(), rel=1e-9)
    assert sketch.absmax == np.abs(plain).max()
    assert sketch.kurtosis == pytest.approx(scipy.stats.kurtosis(plain, axis=None), rel=1e-9)
    assert sketch.outlier_share == (np.abs(plain - plain.mean()) > 6 * plain.std()).mean() > 0
    np.testing.assert_array_equal(sketch.row_absmax, np.abs(plain).max(1))
    np.testing.assert_array_equal(sketch.col_absmax, np.abs(plain).max(0))


def test_a_gaussian_has_no_excess_kurtosis_and_no_outliers() -> None:
    sketch = weight_sketch.compute_sketch(torch.randn(400, 500, generator=torch.Generator().manual_seed(1)))
    assert abs(sketch.kurtosis) < 4 * (24 / 200_000) ** 0.5, "four standard errors"
    assert sketch.outlier_share == 0


def test_a_constant_matrix_has_no_spread() -> None:
    sketch = weight_sketch.compute_sketch(torch.zeros(3, 5))
    assert (sketch.std, sketch.kurtosis, sketch.outlier_share) == (0, 0, 0)
    assert sketch.histogram.total == 15


def test_every_weight_is_counted_once(block: None) -> None:
    weight = heavy(37, 211)
    histogram = weight_sketch.compute_histogram(weight, limit=0.05, bins=31)
    edges = np.linspace(-0.05, 0.05, 32)
    plain = weight.double().numpy()
    np.testing.assert_array_equal(histogram.counts, np.histogram(plain, bins=edges)[0])
    assert histogram.outside == (np.abs(plain) > 0.05).sum() > 0
    assert histogram.total == weight.numel()
    np.testing.assert_allclose(histogram.centres, (edges[:-1] + edges[1:]) / 2, atol=1e-12)


def test_the_histogram_of_one_row_counts_that_row() -> None:
    weight = heavy(5, 100)
    assert (
        weight_sketch.compute_histogram(weight[2:3], limit=1.0).total
        == weight_sketch.compute_histogram(weight[2], limit=1.0).total
        == 100
    )


def test_a_single_changed_weight_is_seen_everywhere() -> None:
    weight = torch.randn(300, 700, generator=torch.Generator().manual_seed(2))
    changed = weight.clone()
    changed[211, 503] = 9.0
    before, after = weight_sketch.compute_sketch(weight), weight_sketch.compute_sketch(changed)
    assert after.absmax == after.row_absmax[211] == after.col_absmax[503] == 9.0
    assert after.kurtosis > before.kurtosis
    assert (before.outlier_share, after.outlier_share) == (0, 1 / weight.numel())
    moved = (
        weight_sketch.compute_histogram(changed, limit=10.0).counts - weight_sketch.compute_histogram(weight, limit=10.0).counts
    )
    assert sorted(moved[moved != 0]) == [-1, 1]


def quantized(model: ModelHandle, **settings: object) -> QuantizedLayer:
    return wb.quantize(model, LAYER, wb.recipe("rtn", **settings))


def test_the_levels_of_a_row_are_its_distinct_values(builtin: ModelHandle) -> None:
    decoded = quantized(builtin, bits=2, group=0).weight()
    levels = weight_sketch.find_row_levels(decoded[3])
    assert levels is not None
    assert levels.values.tolist() == sorted(set(decoded[3].tolist()))
    assert len(levels.values) == 4
    assert levels.groups == 1
    assert weight_sketch.find_row_levels(torch.arange(weight_sketch.MAX_LEVELS + 1.0)) is None, "too many to draw"


def test_the_levels_of_a_layer_are_the_medians_over_its_groups(builtin: ModelHandle) -> None:
    layer = quantized(builtin, bits=2, group=64)
    levels = weight_sketch.find_layer_levels(layer.packed)
    decoded = layer.weight().reshape(-1, 64)
    own = [np.unique(group) for group in decoded.numpy()]
    full = np.array([values for values in own if len(values) == 4])
    assert levels is not None
    assert levels.groups == len(own)
    np.testing.assert_allclose(levels.values, np.median(full, 0), rtol=1e-6)
    np.testing.assert_allclose(levels.low, np.quantile(full, 0.1, axis=0), rtol=1e-6)
    np.testing.assert_allclose(levels.high, np.quantile(full, 0.9, axis=0), rtol=1e-6)


def test_a_permutation_keeps_the_levels(builtin: ModelHandle) -> None:
    stats = wb.calibrate(builtin, wb.text("calibration"), tokens=512, layers=[LAYER])
    layer = wb.quantize(builtin, LAYER, wb.recipe("gptq", bits=2, group=64, act_order=True), stats=stats)
    levels = weight_sketch.find_layer_levels(layer.packed)
    assert layer.packed.format == "permuted"
    assert levels is not None
    assert len(levels.values) == 4


@pytest.mark.parametrize(
    "settings",
    [pytest.param({"bits": 6, "group": 64}, id="64-levels"), pytest.param({"bits": 2, "group": 24}, id="ragged-groups")],
)
def test_there_are_no_levels_where_they_cannot_be_drawn(builtin: ModelHandle, settings: dict[str, object]) -> None:
    assert weight_sketch.find_layer_levels(quantized(builtin, **settings).packed) is None


@pytest.mark.parametrize("shape", [(4,), (0, 4), (2, 3, 4)], ids=str)
def test_what_is_no_matrix_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="give a matrix"):
        weight_sketch.compute_sketch(torch.zeros(shape))


@pytest.mark.parametrize("settings", [{"limit": 0.0}, {"limit": float("nan")}, {"limit": 1.0, "bins": 0}], ids=str)
def test_a_histogram_has_bins_and_a_width(settings: dict[str, float]) -> None:
    with pytest.raises(ShapeError, match="use 1 bin or more, and a limit above 0"):
        wb.measures.weight_histogram(torch.zeros(3), **settings)  # type: ignore[arg-type]
