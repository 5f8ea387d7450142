"""Distance of a coded matrix from the original: energies of errors, one part of the matrix at a time, in float64."""

import torch
from torch import Tensor

ROWS_AT_ONCE = 512  # rows whose output error is worked out at once
COLUMNS_AT_ONCE = 128  # columns whose energy is worked out at once
MOMENT_COLUMNS = 256  # columns of a second moment that are multiplied at once
NUMBERS_AT_ONCE = 1 << 18  # numbers that are compared at a time: in float64 they fit a cache


def compute_column_energies(w: Tensor, columns: slice, other: Tensor | None = None) -> Tensor:
    """Squared norms, float64, of some columns of `w`, or of what `other` differs from them by; a few columns at a time."""
    energies = []
    for start in range(columns.start, columns.stop, COLUMNS_AT_ONCE):
        part = slice(start, min(start + COLUMNS_AT_ONCE, columns.stop))
        values = w[:, part] if other is None else other[:, part] - w[:, part]
        energies.append(values.double().square().sum(0))
    return torch.cat(energies)


def compute_relative_error(w: Tensor, decoded: Tensor) -> float:
    """‖Ŵ−W‖²/‖W‖², zero for an all-zero matrix that stays zero."""
    size = error = 0.0
    rows = max(NUMBERS_AT_ONCE // max(w.shape[1], 1), 1)  # a large matrix is not held in float64 as a whole
    for original, values in zip(w.split(rows), decoded.split(rows), strict=True):
        single = original.float()
        size += single.double().square_().sum().item()
        error += (values - single).double().square_().sum().item()
    return compute_energy_ratio(error, size)


def compute_output_error(w: Tensor, decoded: Tensor, h: Tensor) -> float:
    """tr(E H Eᵀ)/tr(W H Wᵀ): the share of the layer's output energy that is lost on the calibration text."""
    size = error = 0.0
    for rows, values in zip(w.split(ROWS_AT_ONCE), decoded.split(ROWS_AT_ONCE), strict=True):
        single = rows.float()
        both = torch.cat([single, values - single])  # the moment of a wide layer is read once for both
        energy = _compute_energies(both, h)
        size, error = size + energy[: len(rows)].sum().item(), error + energy[len(rows) :].sum().item()
    return compute_energy_ratio(error, size)


def _compute_energies(rows: Tensor, h: Tensor) -> Tensor:
    """r H rᵀ of every row, float64: only the blocks of the symmetric H on and above its diagonal are multiplied."""
    total = torch.zeros(len(rows), dtype=torch.float64)
    for start in range(0, len(h), MOMENT_COLUMNS):
        block, before = slice(start, start + MOMENT_COLUMNS), slice(0, start)
        product = torch.addmm(rows[:, block] @ h[block, block], rows[:, before], h[before, block], alpha=2)
        total += (product * rows[:, block]).sum(1, dtype=torch.float64)
    return total


def compute_energy_ratio(error: float, size: float) -> float:
    """Energy of an error over that of what it was made in; 0 for nothing lost of nothing."""
    return error / size if size else (0.0 if error == 0 else float("inf"))
