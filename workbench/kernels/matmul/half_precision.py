"""Products with plain matrices of 16-bit numbers, such as output heads, without a float32 copy of them."""

import torch
from torch import Tensor

from workbench.interrupts import defer_interrupts
from workbench.kernels.forced_backend import read_forced_backend
from workbench.kernels.kernel_mode import Product

LANES = 32  # columns that a compiled loop takes at once


def find_product(weight: Tensor) -> Product | None:
    """x Wᵀ for float32 inputs with `weight [rows, cols]` as it lies in memory; None where no compiled loop can do that."""
    if read_forced_backend() == "reference" or weight.device.type != "cpu" or not weight.is_contiguous():
        return None
    with defer_interrupts():
        from workbench.kernels.matmul.numba.dense import bf16_matmul, fp16_matmul

    if weight.dtype == torch.bfloat16:
        return bf16_matmul.wrap_bf16(weight)
    if weight.dtype == torch.float16 and weight.shape[1] % LANES == 0:
        return fp16_matmul.pack_fp16(weight, torch.ones(len(weight), 1), weight.shape[1], weight.shape[1])
    return None
