"""Values that are no numbers are counted, in every type that weights come in; a sum that overflows accuses nobody."""

import pytest
import torch

from workbench.nonfinite import count_nonfinite

TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("wrong", [0, 1, 3])
def test_every_value_that_is_no_number_is_counted(dtype: torch.dtype, wrong: int) -> None:
    values = torch.ones(4, 5).to(dtype)
    values.view(-1)[:wrong] = torch.nan
    assert count_nonfinite(values) == wrong


def test_infinities_that_cancel_are_found() -> None:
    assert count_nonfinite(torch.tensor([1.0, torch.inf, -torch.inf])) == 2


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_large_values_are_finite(dtype: torch.dtype) -> None:
    assert count_nonfinite(torch.full((8, 8), torch.finfo(dtype).max, dtype=dtype)) == 0
