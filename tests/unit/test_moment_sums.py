"""Sums of products and their means against plain torch, and in place where a second one would fill the memory."""

import pytest
import torch

from workbench import moment_sums
from workbench.moment_sums import add_product, choose_sum_dtype, compute_symmetric_mean


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moment_sums, "ROWS_AT_ONCE", 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cols", [5, 16, 29])
def test_products_add_up_in_place(cols: int, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(cols)
    total, start = torch.ones(cols, cols, dtype=dtype), torch.ones(cols, cols, dtype=torch.float64)
    address = total.data_ptr()
    for tokens in (3, 40):
        left, right = torch.randn(2, tokens, cols, generator=draw)
        add_product(total, left, right)
        start += left.double().T @ right.double()
    assert total.data_ptr() == address
    torch.testing.assert_close(total.double(), start, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cols", [5, 16, 29])
def test_means_are_exactly_symmetric(cols: int, dtype: torch.dtype) -> None:
    total = torch.randn(cols, cols, generator=torch.Generator().manual_seed(cols)).to(dtype)
    address, expected = total.data_ptr(), ((total + total.T) / 14).float()
    mean = compute_symmetric_mean(total, 7)
    assert torch.equal(mean, expected)
    assert torch.equal(mean, mean.T)
    assert (mean.data_ptr() == address) == (dtype == torch.float32)


def test_very_wide_sums_are_float32() -> None:
    assert (choose_sum_dtype(4096), choose_sum_dtype(4097)) == (torch.float64, torch.float32)
