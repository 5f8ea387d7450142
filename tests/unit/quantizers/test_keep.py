"""Kept weights: exact in the narrowest type that can be, or half of it when asked."""

import pytest
import torch

from tests.battery.cases import gaussian, quantize
from workbench import registry
from workbench.presets.preset import compose


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=["fp16", "bf16", "fp32"])
def test_exact_keeps_every_bit_in_the_original_type(dtype: torch.dtype) -> None:
    w = (gaussian(8, 40) * 1e-4).to(dtype)
    result = quantize(compose(registry.make("coder", "keep")), w)
    assert result.packed.tensors["weight"].dtype == dtype
    assert torch.equal(result.packed.tensors["weight"], w)
    assert result.relative_error == 0
    assert result.nominal_bits == result.bits_per_weight == torch.finfo(dtype).bits


def test_half_rounds_once() -> None:
    w = gaussian(8, 40)
    result = quantize(compose(registry.make("coder", "keep", dtype="fp16")), w)
    assert torch.equal(result.weight(), w.half().float())
    assert result.bits_per_weight == 16
