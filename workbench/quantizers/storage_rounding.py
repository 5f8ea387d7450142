"""Rounding numbers to their stored precision, so that every error is measured after rounding."""

import torch
from torch import Tensor

MAX_FP16 = torch.finfo(torch.float16).max


def round_to_fp16(x: Tensor) -> Tensor:
    """`x` rounded to fp16 and back to float32; values beyond ±65504 become ±65504."""
    return x.clamp(-MAX_FP16, MAX_FP16).half().float()
