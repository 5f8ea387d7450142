"""Every cell of a raster is the weight of largest magnitude in it, wherever the window is, and says where that weight sits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.analysis.weights import raster
from workbench.analysis.weights.raster import Window
from workbench.errors import ShapeError

STRANGE = (0.0, -0.0, 1.5, -1.5, float("inf"), -float("inf"), float("nan"))


def size(value: float) -> float:
    """What is compared: NaN is before everything."""
    return np.inf if np.isnan(value) else abs(value)


@st.composite
def windows(draw: st.DrawFn) -> tuple[np.ndarray, Window, int, int]:
    """A small matrix, any window of it, and the most cells of a picture."""
    rows, cols = draw(st.integers(1, 23)), draw(st.integers(1, 31))
    random = np.random.default_rng(draw(st.integers(0, 999)))
    weight = random.standard_normal((rows, cols)).astype(np.float32)
    for _ in range(draw(st.integers(0, 5))):
        weight[random.integers(rows), random.integers(cols)] = draw(st.sampled_from(STRANGE))
    top, left = draw(st.integers(0, rows - 1)), draw(st.integers(0, cols - 1))
    window = top, draw(st.integers(top, rows - 1)), left, draw(st.integers(left, cols - 1))
    return weight, window, draw(st.integers(1, 9)), draw(st.integers(1, 9))


@settings(deadline=None, max_examples=150)
@given(windows())
def test_each_cell_shows_its_largest_weight(case: tuple[np.ndarray, Window, int, int]) -> None:
    weight, window, height, width = case
    top, bottom, left, right = window
    seen = raster.rasterize(raster.read_weight(torch.from_numpy(weight)), window, height=height, width=width)
    tall, wide = seen.values.shape
    assert tall <= height
    assert wide <= width
    assert tall == -(-(bottom - top + 1) // seen.row_step)
    assert wide == -(-(right - left + 1) // seen.col_step)
    for down, across in np.ndindex(tall, wide):
        row, col = top + down * seen.row_step, left + across * seen.col_step
        cell = weight[row : min(row + seen.row_step, bottom + 1), col : min(col + seen.col_step, right + 1)]
        at = int(seen.rows[down, across]), int(seen.cols[down, across])
        assert row <= at[0] < row + len(cell)
        assert col <= at[1] < col + cell.shape[1]
        np.testing.assert_equal(seen.values[down, across], weight[at])
        assert size(weight[at]) == max(map(size, cell.ravel()))
        assert np.isnan(cell).any() == np.isnan(seen.values[down, across])
        assert seen.find_cell(row, col) == at


@settings(deadline=None, max_examples=100)
@given(windows(), st.integers(1, 30))
def test_the_table_lists_the_largest_weights_of_the_window(case: tuple[np.ndarray, Window, int, int], count: int) -> None:
    weight, window, height, width = case
    read = raster.read_weight(torch.from_numpy(weight))
    table = raster.tabulate_largest_weights(raster.rasterize(read, window, height=height, width=width), read, count)
    inside = weight[window[0] : window[1] + 1, window[2] : window[3] + 1].ravel()
    assert sorted(map(size, table["value"]), reverse=True) == sorted(map(size, inside), reverse=True)[:count]
    for line in table.itertuples():
        np.testing.assert_equal(weight[line.row, line.column], np.float32(line.value))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_values_are_those_that_are_stored(dtype: torch.dtype) -> None:
    weight = torch.randn(40, 50, generator=torch.Generator().manual_seed(1)).to(dtype)
    seen = raster.rasterize(raster.read_weight(weight), (3, 30, 5, 44))
    np.testing.assert_array_equal(seen.values, weight[3:31, 5:45].to(torch.float64).numpy())
    assert seen.single


def test_the_difference_is_that_of_the_whole_matrices() -> None:
    before = torch.randn(300, 900, generator=torch.Generator().manual_seed(1)).bfloat16()
    after = before.float().round(decimals=1)
    seen = raster.rasterize(raster.read_difference(after, before), (0, 299, 0, 899))
    difference = (after - before.float()).numpy()
    np.testing.assert_array_equal(seen.values, difference[seen.rows, seen.cols])


def test_numbers_of_a_large_matrix_do_not_overflow() -> None:
    weight = torch.zeros(1, 70_000)
    weight[0, 69_999] = 1
    seen = raster.rasterize(raster.read_weight(weight), (0, 0, 0, 69_999))
    assert seen.cols[0, -1] == 69_999
    assert seen.cols.dtype == np.uint32
    assert raster.rasterize(raster.read_weight(weight), (0, 0, 0, 60_000)).cols.dtype == np.uint16


@pytest.mark.parametrize("window", [(3, 2, 0, 0), (0, 0, 1, 0), (-1, 2, 0, 0)], ids=str)
def test_an_empty_window_is_refused(window: Window) -> None:
    with pytest.raises(ShapeError, match="is empty; write the smaller number first"):
        raster.rasterize(raster.read_weight(torch.ones(4, 4)), window)


def test_colours_end_at_a_finite_weight() -> None:
    values = torch.tensor([[1.0, -4.0, float("inf"), float("nan"), 2.0, 0.5]])
    seen = raster.rasterize(raster.read_weight(values), (0, 0, 0, 5))
    assert seen.compute_limit() == 4
    assert seen.compute_limit(0.5) == 1.5
    for nothing in (torch.zeros(2, 2), torch.full((2, 2), float("nan"))):
        assert raster.rasterize(raster.read_weight(nothing), (0, 1, 0, 1)).compute_limit() == 1


@settings(deadline=None)
@given(windows(), st.integers(-1, 1), st.integers(-1, 1), st.sampled_from([0.5, 2.0]))
def test_a_moved_window_stays_inside(case: tuple[np.ndarray, Window, int, int], down: int, right: int, factor: float) -> None:
    weight, window, _, _ = case
    for moved in (raster.shift_window(window, weight.shape, down, right), raster.scale_window(window, weight.shape, factor)):
        assert 0 <= moved[0] <= moved[1] < weight.shape[0]
        assert 0 <= moved[2] <= moved[3] < weight.shape[1]
    shifted = raster.shift_window(window, weight.shape, down, right)
    assert [shifted[1] - shifted[0], shifted[3] - shifted[2]] == [window[1] - window[0], window[3] - window[2]]


def test_windows_are_moved_by_half_and_scaled_around_their_middle() -> None:
    assert raster.shift_window((10, 19, 40, 59), (100, 100), 1, -1) == (15, 24, 30, 49)
    assert raster.scale_window((10, 19, 40, 59), (100, 100), 0.5) == (12, 16, 45, 54)
    assert raster.scale_window((10, 19, 40, 59), (25, 100), 2.0) == (5, 24, 30, 69)


@pytest.mark.parametrize(
    ("x", "y", "window"),
    [
        ((-0.5, 9.5), (-0.5, 4.5), (0, 4, 0, 9)),
        ((9.5, -0.5), (4.5, -0.5), (0, 4, 0, 9)),
        ((1.6, 3.4), (0.49, 0.51), (0, 1, 2, 3)),
        ((-9.0, -3.0), (99.0, 120.0), (4, 4, 0, 0)),
        ((2.0, 2.0), (1.2, 1.3), (1, 1, 2, 2)),
    ],
)
def test_what_can_be_seen(x: tuple[float, float], y: tuple[float, float], window: Window) -> None:
    assert raster.find_visible_window(x, y, (5, 10)) == window
