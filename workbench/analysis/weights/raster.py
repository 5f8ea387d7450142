"""A window of a matrix as a raster: each cell is the weight of largest magnitude in it, with its sign and its place.

A mean would hide the outliers that decide how a matrix can be quantized. The weights are read in bands of rows, so that nothing
as large as the matrix is made, and only the cells reach a browser. On 4096 × 11008 weights this takes as long as reading them
twice; Datashader needs a copy of the magnitudes first and gives neither sign nor place.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.errors import ShapeError

HEIGHT, WIDTH = 256, 384  # cells of one picture, at most
LARGEST = 20  # weights of the table twin

Window = tuple[int, int, int, int]  # first row, last row, first column, last column
Read = Callable[[slice, slice], np.ndarray]  # some rows and columns of a matrix


@dataclass(frozen=True)
class Raster:
    """A window of a matrix in cells of `row_step × col_step` weights, the last ones smaller.

    `values [height, width]` are the weights of largest magnitude, NaN before all others, and `rows` and `cols` say where they
    are. Among equals it is the one in the first column, and there in the first row.
    """

    values: np.ndarray
    rows: np.ndarray
    cols: np.ndarray
    window: Window
    row_step: int
    col_step: int

    @property
    def single(self) -> bool:
        """Whether every cell is one weight."""
        return self.row_step * self.col_step == 1

    def compute_limit(self, share: float = 1.0) -> float:
        """The magnitude that this share of the cells with finite weights does not exceed, 1 where it is 0."""
        sizes = np.abs(self.values[np.isfinite(self.values)])
        return float(np.quantile(sizes, share)) or 1.0 if len(sizes) else 1.0

    def find_cell(self, row: float, col: float) -> tuple[int, int]:
        """The weight, as (row, column), that the cell at this place shows; the nearest cell outside of the window."""
        down = (round(row) - self.window[0]) // self.row_step
        right = (round(col) - self.window[2]) // self.col_step
        cell = min(max(down, 0), len(self.values) - 1), min(max(right, 0), self.values.shape[1] - 1)
        return int(self.rows[cell]), int(self.cols[cell])


def read_weight(weight: Tensor) -> Read:
    """What reads a part of this matrix."""
    return lambda rows, cols: _convert_to_array(weight[rows, cols])


def read_difference(after: Tensor, before: Tensor) -> Read:
    """What reads a part of `after − before`, without a whole matrix of differences."""
    return lambda rows, cols: _convert_to_array(after[rows, cols]) - _convert_to_array(before[rows, cols])


def _convert_to_array(part: Tensor) -> np.ndarray:
    """Weights as floats of 32 bits, or of 64 where they are stored so.

    NumPy converts them in this thread; torch would share a few thousand among all cores and wait for the busiest.
    """
    part = part.detach().cpu()
    array: np.ndarray
    if part.dtype == torch.bfloat16:  # the upper half of a float of 32 bits
        array = (part.view(torch.uint16).numpy().astype(np.uint32) << 16).view(np.float32)
    elif part.dtype in (torch.float16, torch.float32):
        array = part.numpy().astype(np.float32, copy=False)
    else:
        array = (part if part.dtype == torch.float64 else part.float()).numpy()
    return array


def rasterize(read: Read, window: Window, *, height: int = HEIGHT, width: int = WIDTH) -> Raster:
    """At most `height × width` cells of a window; ShapeError for a window without weights."""
    top, bottom, left, right = window
    if top > bottom or left > right or min(top, left) < 0:
        raise ShapeError(
            f"a window of rows {top} to {bottom} and columns {left} to {right} is empty; write the smaller number first."
        )
    row_step, col_step = -(-(bottom - top + 1) // height), -(-(right - left + 1) // width)
    bands = []
    for row in range(top, bottom + 1, row_step):
        band = read(slice(row, min(row + row_step, bottom + 1)), slice(left, right + 1))
        values, rows, cols = _find_extremes(band, col_step)
        bands.append((values, rows + row, cols + left))
    kind = np.promote_types(np.uint16, np.min_scalar_type(max(bottom, right)))  # small ones make small messages
    values, rows, cols = (np.stack(part) for part in zip(*bands, strict=True))
    return Raster(values, rows.astype(kind), cols.astype(kind), window, row_step, col_step)


def _find_extremes(band: np.ndarray, col_step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The weight of largest magnitude in every `col_step` columns of a band of rows, with its row and column there."""
    sizes = np.abs(band)
    starts = np.arange(0, band.shape[1], col_step)
    tallest = np.full(len(starts) * col_step, -1.0, sizes.dtype)  # nothing beyond the last column is larger
    tallest[: band.shape[1]] = sizes.max(0)
    cols = tallest.reshape(-1, col_step).argmax(1) + starts  # of NaN and others it is NaN
    rows = sizes[:, cols].argmax(0)
    return band[rows, cols], rows, cols


def tabulate_largest_weights(raster: Raster, read: Read, count: int = LARGEST) -> pd.DataFrame:
    """The weights of largest magnitude in a raster's window, largest first: row, column, value.

    They lie in the cells with the largest ones, so only those cells are read.
    """
    order = np.argsort(-_measure_sizes(raster.values), axis=None, kind="stable")[:count]
    parts = []
    for down, right in zip(*np.unravel_index(order, raster.values.shape), strict=True):
        top, left = raster.window[0] + int(down) * raster.row_step, raster.window[2] + int(right) * raster.col_step
        bottom, end = min(top + raster.row_step, raster.window[1] + 1), min(left + raster.col_step, raster.window[3] + 1)
        values = read(slice(top, bottom), slice(left, end))
        rows, cols = np.mgrid[top:bottom, left:end]
        parts.append(pd.DataFrame({"row": rows.ravel(), "column": cols.ravel(), "value": values.ravel()}))
    table = pd.concat(parts, ignore_index=True)
    places = np.argsort(-_measure_sizes(table["value"].to_numpy()), kind="stable")[:count]
    return table.iloc[places].reset_index(drop=True)


def _measure_sizes(values: np.ndarray) -> np.ndarray:
    """Magnitudes to sort by: NaN is as large as infinity."""
    return np.where(np.isnan(values), np.inf, np.abs(values))


def sum_column_energies(read: Read, shape: tuple[int, int]) -> np.ndarray:
    """The sum of squares of each column of a matrix, or of a difference, float64 `[cols]`."""
    bands = (read(slice(row, row + HEIGHT), slice(0, shape[1])) for row in range(0, shape[0], HEIGHT))
    energies: np.ndarray = sum((np.square(band, dtype=np.float64).sum(0) for band in bands), np.zeros(shape[1]))
    return energies


def shift_window(window: Window, shape: tuple[int, int], down: int, right: int) -> Window:
    """A window of the same size, half of it further down or up (−1), right or left, inside a matrix of this shape."""
    (top, bottom), (left, end) = (
        _shift_range(first, last, size, by)
        for first, last, size, by in ((*window[:2], shape[0], down), (*window[2:], shape[1], right))
    )
    return top, bottom, left, end


def _shift_range(first: int, last: int, size: int, by: int) -> tuple[int, int]:
    length = last - first + 1
    start = min(max(first + by * max(length // 2, 1), 0), size - length)
    return start, start + length - 1


def scale_window(window: Window, shape: tuple[int, int], factor: float) -> Window:
    """A window around the same middle, `factor` times as long and as wide, inside a matrix of this shape."""
    (top, bottom), (left, end) = (
        _scale_range(first, last, size, factor) for first, last, size in ((*window[:2], shape[0]), (*window[2:], shape[1]))
    )
    return top, bottom, left, end


def _scale_range(first: int, last: int, size: int, factor: float) -> tuple[int, int]:
    length = min(max(round((last - first + 1) * factor), 1), size)
    start = min(max((first + last + 1 - length) // 2, 0), size - length)
    return start, start + length - 1


def find_visible_window(x: tuple[float, float], y: tuple[float, float], shape: tuple[int, int]) -> Window:
    """The rows and columns that can be seen, wholly or in part, where axes have these ranges; at least one of each.

    Weight number 3 reaches from 2.5 to 3.5.
    """
    (top, bottom), (left, right) = (_find_visible_range(ends, size) for ends, size in ((y, shape[0]), (x, shape[1])))
    return top, bottom, left, right


def _find_visible_range(ends: tuple[float, float], size: int) -> tuple[int, int]:
    slack = 1e-6 * (abs(ends[1] - ends[0]) or 1.0)  # an edge that is met exactly shows nothing of its neighbour
    first = min(max(int(np.floor(min(ends) + 0.5 + slack)), 0), size - 1)
    last = min(max(int(np.ceil(max(ends) + 0.5 - slack)) - 1, first), size - 1)
    return first, last
