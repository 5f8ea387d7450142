"""What an error costs: the share of a matrix's energy, or of that of its output, that is lost."""

import torch
from torch import Tensor

ROWS = 512  # rows whose output error is worked out at once
PIECE = 1 << 22  # numbers that are compared at a time


def relative_error(w: Tensor, decoded: Tensor) -> float:
    """‖Ŵ−W‖²/‖W‖², zero for an all-zero matrix that stays zero."""
    size = lost = 0.0
    rows = max(PIECE // max(w.shape[1], 1), 1)  # a large matrix is not held in float64 as a whole
    for original, values in zip(w.split(rows), decoded.split(rows), strict=True):
        size += original.double().square().sum().item()
        lost += (values - original).double().square().sum().item()
    return part_of(lost, size)


def output_error(w: Tensor, decoded: Tensor, h: Tensor) -> float:
    """tr(E H Eᵀ)/tr(W H Wᵀ): the share of the layer's output energy that is lost on the calibration text."""
    size = lost = 0.0
    for rows, values in zip(w.split(ROWS), decoded.split(ROWS), strict=True):
        both = torch.cat([rows, values - rows])  # the moment of a wide layer is read once for both
        energy = ((both @ h) * both).sum(1, dtype=torch.float64)
        size, lost = size + energy[: len(rows)].sum().item(), lost + energy[len(rows) :].sum().item()
    return part_of(lost, size)


def part_of(lost: float, size: float) -> float:
    """Energy of an error over that of what it was made in; 0 for nothing lost of nothing."""
    return lost / size if size else (0.0 if lost == 0 else float("inf"))
