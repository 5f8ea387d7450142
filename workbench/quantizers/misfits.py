"""Weights that the stored form cannot represent: outside the range of fp16 scales, or with one dominant column."""

import math
import warnings

import torch
from torch import Tensor

from workbench.errors import WorkbenchWarning
from workbench.quantizers.distance import compute_column_energies, compute_relative_error

MIN_FP16_RMS, MAX_FP16_RMS = 2.0**-14, 2.0**14  # root mean square that fp16 scales of every coder hold to three digits
LOSSLESS = 1e-6  # share of the energy: weights that are kept as they are need no scale
HOPELESS, ONE_COLUMN = 0.9, 0.5  # shares of the energy: lost in all, and held by the largest column


def compute_checked_error(name: str, weight: Tensor, decoded: Tensor) -> float:
    """The relative error of what a layer's `weight` became; a warning where its size or its shape does not fit the format."""
    error = compute_relative_error(weight, decoded)
    _warn_of_misfits(name, weight, error)
    return error


def _warn_of_misfits(name: str, weight: Tensor, error: float) -> None:
    """Warn, in one sentence, where a layer's weight error comes from a size or a shape of weights that the format cannot say."""
    if error < LOSSLESS:
        return
    columns = compute_column_energies(weight, slice(0, weight.shape[1]))
    if not columns.any():
        return
    size = math.sqrt(columns.sum().item() / weight.numel())
    if not MIN_FP16_RMS <= size <= MAX_FP16_RMS:
        power = -round(math.log2(size))
        warnings.warn(
            f"layer {name!r}: its weights have a root mean square of {size:.2g}, and scales are stored in fp16, which is exact "
            f"from 6.1e-05 to 65504 only: the weight error is {error:.2g}; leave the layer out, or quantize its weights "
            f"multiplied by 2^{power}.",
            WorkbenchWarning,
            stacklevel=3,
        )
        return
    worst = int(torch.argmax(columns))
    share = (columns[worst] / columns.sum()).item()
    if error > HOPELESS and share > ONE_COLUMN and weight.shape[1] > 2:
        warnings.warn(
            f"layer {name!r}: column {worst} of {weight.shape[1]} holds {share:.0%} of the weights' energy, which one scale per "
            f"row cannot represent: the weight error is {error:.2g}, that of zeros is 1; use transform=hadamard, or "
            f"scales=row-column where the preset has it.",
            WorkbenchWarning,
            stacklevel=3,
        )
