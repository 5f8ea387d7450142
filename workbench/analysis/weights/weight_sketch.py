"""A compact description of a weight matrix: moments and histogram (`compute_sketch`), and the quantizer's levels.

Everything reads the matrix in row blocks and returns small numpy arrays; no matrix is kept and none reaches a browser.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workbench.errors import ShapeError
from workbench.kernels import formats
from workbench.kernels.formats.rounding import ROUNDED
from workbench.kernels.packing.packed import Packed

WEIGHTS_AT_ONCE = 1 << 18  # weights converted to float at a time: 2 MB in float64
OUTLIER = 6.0  # standard deviations from the mean; a Gaussian matrix of 10⁸ weights has none
MAX_LEVELS = 32  # more lines than this on a histogram are a grey wall


@dataclass(frozen=True)
class Histogram:
    """Counts of equally wide bins between `low` and `high`; `outside` weights lie beyond them."""

    counts: np.ndarray
    low: float
    high: float
    outside: int

    @property
    def width(self) -> float:
        """Width of one bin."""
        return (self.high - self.low) / len(self.counts)

    @property
    def centres(self) -> np.ndarray:
        """The middle of each bin."""
        return self.low + self.width * (np.arange(len(self.counts)) + 0.5)

    @property
    def total(self) -> int:
        """All weights, inside and outside."""
        return int(self.counts.sum()) + self.outside

    def times(self, factor: float) -> "Histogram":
        """The histogram of as many more weights of the same kind, to whole numbers."""
        return Histogram(np.rint(factor * self.counts).astype(np.int64), self.low, self.high, round(factor * self.outside))


@dataclass(frozen=True)
class Sketch:
    """Moments and ranges of one matrix `[rows, cols]`.

    `skewness` and the excess `kurtosis` (Fisher) are biased estimates, 0 for a Gaussian; `outlier_share` is the share of weights
    more than 6 standard deviations from the mean; `row_absmax [rows]` and `col_absmax [cols]` are largest magnitudes, and
    `row_energy` and `col_energy` sums of squares.
    """

    rows: int
    cols: int
    mean: float
    std: float
    absmax: float
    skewness: float
    kurtosis: float
    outlier_share: float
    row_absmax: np.ndarray
    col_absmax: np.ndarray
    row_energy: np.ndarray
    col_energy: np.ndarray
    histogram: Histogram


@dataclass(frozen=True)
class Levels:
    """The values a quantizer can give a weight, ascending.

    For one row they are exact and `low == high == values`. For a whole layer every group of weights has its own levels:
    `values` are the medians over groups, `low` and `high` the 10th and 90th percentiles.
    """

    values: np.ndarray
    low: np.ndarray
    high: np.ndarray
    groups: int


def compute_sketch(weight: Tensor, *, bins: int = 161) -> Sketch:
    """Compute moments, ranges and a histogram of a weight, in two passes over its row blocks.

    Args:
        weight: The weight `[rows, cols]`.
        bins: Bins of the histogram.

    Returns:
        Mean, standard deviation, skewness, excess kurtosis (0 for a Gaussian), share of outliers, largest magnitude and energy of
        each row and column, and the histogram.

    Raises:
        ShapeError: For anything but a matrix with at least one weight.

    Example:
        >>> import workbench as wb
        >>> model = wb.open_model("builtin")
        >>> sketch = wb.measures.weight_sketch(model.weight("model.layers.0.mlp.down_proj"))
        >>> sketch.rows, sketch.cols, sketch.histogram.total
        (256, 768, 196608)
        >>> bool(sketch.kurtosis > 0)  # heavier tails than a Gaussian's
        True
    """
    check_matrix(weight)
    total = weight.numel()
    mean = sum(block.sum().item() for block in iterate_row_blocks(weight)) / total
    powers = np.zeros(3)
    row_absmax, row_energy = [], []
    col_absmax, col_energy = torch.zeros(2, weight.shape[1], dtype=torch.float64)
    for block in iterate_row_blocks(weight):
        off, energy = block - mean, block.square()
        squares = off.square()
        powers += [squares.sum().item(), (squares * off).sum().item(), squares.square().sum().item()]
        row_absmax.append(block.abs().amax(1))
        row_energy.append(energy.sum(1))
        col_absmax = torch.maximum(col_absmax, block.abs().amax(0))
        col_energy = col_energy + energy.sum(0)
    std = float(np.sqrt(powers[0] / total))
    outliers = sum(((block - mean).abs() > OUTLIER * std).sum().item() for block in iterate_row_blocks(weight))
    absmax = float(col_absmax.max())
    return Sketch(
        rows=weight.shape[0],
        cols=weight.shape[1],
        mean=mean,
        std=std,
        absmax=absmax,
        skewness=powers[1] / total / std**3 if std else 0.0,
        kurtosis=powers[2] / total / std**4 - 3 if std else 0.0,
        outlier_share=outliers / total,
        row_absmax=torch.cat(row_absmax).float().numpy(),
        col_absmax=col_absmax.float().numpy(),
        row_energy=torch.cat(row_energy).float().numpy(),
        col_energy=col_energy.float().numpy(),
        histogram=compute_histogram(weight, limit=min(absmax, 8 * std) or 1.0, bins=bins),
    )


def compute_histogram(weight: Tensor, *, limit: float, bins: int = 161) -> Histogram:
    """Count the weights in equally wide bins around zero.

    Args:
        weight: A tensor of any shape.
        limit: Bins lie between −limit and limit.
        bins: How many there are.

    Returns:
        The counts, and how many weights lie outside.

    Raises:
        ShapeError: For fewer bins than 1, or a limit that is not above 0.

    Example:
        >>> import torch
        >>> import workbench as wb
        >>> histogram = wb.measures.weight_histogram(torch.tensor([-1.0, 0.0, 0.0, 3.0]), limit=2, bins=4)
        >>> histogram.counts.tolist(), histogram.outside
        ([0, 1, 2, 0], 1)
    """
    if bins < 1 or not limit > 0:
        raise ShapeError(f"{bins} bins up to {limit:g}; use 1 bin or more, and a limit above 0.")
    counts = np.zeros(bins, dtype=np.int64)
    for block in iterate_row_blocks(weight.reshape(1, -1) if weight.ndim < 2 else weight):
        counts += np.histogram(block.numpy(), bins=bins, range=(-limit, limit))[0]
    return Histogram(counts, -limit, limit, weight.numel() - int(counts.sum()))


def find_row_levels(values: Tensor) -> Levels | None:
    """The distinct values of one decoded row, or None when there are too many to draw."""
    distinct = torch.unique(values).numpy()
    if len(distinct) > MAX_LEVELS:
        return None
    return Levels(distinct, distinct, distinct, 1)


def find_layer_levels(packed: Packed, *, groups: int = 4096) -> Levels | None:
    """Find the values that a quantizer can give the weights of a layer, as medians over its groups of weights.

    Args:
        packed: A stored matrix, the `packed` of what `wb.quantize` gave.
        groups: At most so many groups are looked at.

    Returns:
        The levels, ascending, with the 10th and 90th percentiles over groups. None where levels do not exist in the model's own
        basis (a rotation, a sum) or are too many to draw.

    Example:
        >>> import workbench as wb
        >>> result = wb.quantize(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", wb.recipe("rtn", bits=2))
        >>> len(wb.measures.layer_levels(result.packed).values)
        4
    """
    node = packed
    while node.format in ("permuted", ROUNDED):  # a permutation moves weights but keeps their values; rounding is of inputs
        node = node.children[0]
    span = node.facts.get("span")
    if span is None or node.cols % span:
        return None
    decoded = formats.decode(node).reshape(-1, span)
    decoded = decoded[:: -(-len(decoded) // groups)]
    ordered = decoded.sort(1).values
    fresh = torch.cat([torch.ones_like(ordered[:, :1], dtype=torch.bool), ordered.diff(dim=1) > 0], 1)
    distinct = fresh.sum(1)
    most = int(distinct.max())
    if most > MAX_LEVELS:
        return None
    # groups that use every level; the others have gaps and their levels cannot be told apart
    full = distinct == most
    values = ordered[full][fresh[full]].view(-1, most).numpy()
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9], axis=0)
    return Levels(middle, low, high, len(decoded))


def iterate_row_blocks(weight: Tensor) -> Iterator[Tensor]:
    """Row blocks of `weight` in float64 on the CPU."""
    rows = max(1, WEIGHTS_AT_ONCE // weight.shape[1])
    for start in range(0, weight.shape[0], rows):
        yield weight[start : start + rows].detach().to("cpu", torch.float64)


def check_matrix(weight: Tensor) -> None:
    """Raise ShapeError unless `weight` is a matrix with at least one weight."""
    if weight.ndim != 2 or 0 in weight.shape:
        shape = list(weight.shape)
        raise ShapeError(f"a weight of shape {shape} cannot be drawn; give a matrix [rows, cols] with both at least 1.")
