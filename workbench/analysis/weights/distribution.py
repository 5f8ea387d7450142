"""The distribution of the weights of one matrix: normal quantiles, ranges of rows and columns, the largest weights.

Tensors are `[rows, cols]`; all results are small tables.
"""

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from workbench.analysis.weights.weight_sketch import Levels, check_matrix, iterate_row_blocks

BINS = 1 << 16  # quantiles are exact to a 65,536th of the range
BAND = (0.05, 0.5, 0.95)  # quantiles of a row or column beside its least and largest weight
SUMMED_DIMENSION = {"row": 1, "column": 0}  # the dimension that is summed up


def compute_cell_edges(levels: Levels) -> np.ndarray:
    """Where the nearest level changes: the middles between neighbouring levels, the edges of the quantizer's cells."""
    return (levels.values[1:] + levels.values[:-1]) / 2


def quantiles(weight: Tensor, shares: np.ndarray) -> np.ndarray:
    """The values of `weight` below which these shares of all weights lie, to a 65,536th of the range."""
    check_matrix(weight)
    low, high = weight.min().item(), weight.max().item()
    if low == high:
        return np.full(len(shares), low)
    counts = sum(
        (torch.histc(block.float(), BINS, low, high).double() for block in iterate_row_blocks(weight)), torch.zeros(BINS).double()
    )
    below = np.concatenate([[0.0], (counts.cumsum(0) / counts.sum()).numpy()])
    return np.interp(shares, below, np.linspace(low, high, BINS + 1))


def tabulate_quantiles(weight: Tensor, points: int = 99) -> pd.DataFrame:
    """Quantiles of the standardized weights beside those of a normal and a Laplace distribution of the same mean and variance.

    One row a quantile: share_below, weights, normal, laplace, all in standard deviations from the mean. Points are spread evenly
    over normal quantiles from −4 to 4, so that the tails are seen.
    """
    check_matrix(weight)
    normal = np.linspace(-4, 4, points)
    shares = stats.norm.cdf(normal)
    measured = quantiles(weight, shares)
    total = weight.numel()
    mean = sum(block.sum().item() for block in iterate_row_blocks(weight)) / total
    spread = np.sqrt(sum((block - mean).square().sum().item() for block in iterate_row_blocks(weight)) / total)
    laplace = stats.laplace.ppf(shares, scale=1 / np.sqrt(2))
    return pd.DataFrame(
        {"share_below": shares, "weights": (measured - mean) / (spread or 1.0), "normal": normal, "laplace": laplace}
    )


def tabulate_ranges(weight: Tensor, side: str) -> pd.DataFrame:
    """One line a row or column (`side`) of `weight`: that number, and its least, low, median, high and largest weight.

    `low` and `high` are the 5 % and 95 % quantiles (the nearest weight).
    """
    check_matrix(weight)
    lines = weight.float() if side == "row" else weight.float().mT
    size = lines.shape[1]
    places = [0, *(round(share * (size - 1)) for share in BAND), size - 1]
    pieces = lines.split(max(1, (1 << 22) // size))
    sorted_values = torch.cat([piece.sort(1).values[:, places] for piece in pieces]).numpy()
    return pd.DataFrame(sorted_values, columns=["least", "low", "median", "high", "most"]).rename_axis(side).reset_index()


def tabulate_largest(weight: Tensor, count: int = 100) -> pd.DataFrame:
    """The weights of largest magnitude, largest first: row, column, value, and sigma, its distance from the mean.

    `sigma` is in standard deviations of the matrix.
    """
    check_matrix(weight)
    flat = weight.float().reshape(-1)
    order = flat.abs().topk(min(count, len(flat))).indices
    spread, cols = flat.std(correction=0).item() or 1.0, weight.shape[1]
    return pd.DataFrame(
        {
            "row": (order // cols).tolist(),
            "column": (order % cols).tolist(),
            "value": flat[order].tolist(),
            "sigma": ((flat[order] - flat.mean()) / spread).tolist(),
        }
    )


def gather_quantized(largest: pd.DataFrame, quantized: Tensor) -> pd.DataFrame:
    """The column `became`: what the weights of a table `largest` are in `quantized`."""
    rows, cols = (torch.from_numpy(largest[side].to_numpy(copy=True)) for side in ("row", "column"))
    return pd.DataFrame({"became": quantized[rows, cols].double().numpy()})


def compute_singular_values(weight: Tensor) -> np.ndarray:
    """Singular values of `weight`, largest first, from the eigenvalues of its smaller Gram matrix in float64.

    Values below 1e-8 of the largest are lost in rounding.
    """
    check_matrix(weight)
    narrow = weight if weight.shape[0] <= weight.shape[1] else weight.mT
    gram = torch.zeros(len(narrow), len(narrow), dtype=torch.float64)
    for piece in narrow.split(max(1, (1 << 22) // len(narrow)), 1):
        gram += piece.double() @ piece.double().mT
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(0).numpy()


def tabulate_spectra(
    original: Tensor, quantized: Tensor | None = None, original_spectrum: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Singular values by rank: rank, original, and where there is a result quantized and difference.

    `original_spectrum` is the table of the original alone, where that has been worked out before.
    """
    spectrum_table = (
        pd.DataFrame({"rank": range(1, min(original.shape) + 1), "singular": compute_singular_values(original)})
        if original_spectrum is None
        else original_spectrum
    )
    table = spectrum_table.copy()
    if quantized is None:
        return table
    return table.assign(
        singular_quantized=compute_singular_values(quantized), singular_difference=compute_singular_values(quantized - original)
    )


def compute_energy_share(singular: np.ndarray, count: int) -> float:
    """The share of the energy Σσ² that the first `count` singular values hold; 0 for an all-zero matrix."""
    energy = np.square(singular)
    return float(energy[:count].sum() / energy.sum()) if energy.sum() > 0 else 0.0
