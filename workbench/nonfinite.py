"""A fast check that all values of a tensor are finite, for every matrix that is read or quantized."""

import math

import torch
from torch import Tensor


def count_nonfinite(tensor: Tensor) -> int:
    """How many values of a floating-point `tensor` are NaN or infinite; one pass over one that has none."""
    values = tensor.float() if tensor.itemsize == 1 else tensor  # torch has no isfinite for all float8 types
    # a sum is finite only if every summand is; a sum that overflows says nothing, and all values are looked at
    total = values.sum(dtype=torch.float64 if values.dtype == torch.float64 else torch.float32).item()
    return 0 if math.isfinite(total) else values.numel() - int(torch.isfinite(values).sum())
