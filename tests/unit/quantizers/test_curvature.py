"""Factors of the inverse moment, against plain inverses."""

import pytest
import torch

from tests.battery.cases import correlated
from workbench.errors import ShapeError
from workbench.quantizers import curvature
from workbench.quantizers.curvature import compute_inverse_factor, compute_lower_factor, damp_moment


@pytest.mark.parametrize("cols", [1, 2, 7, 64])
@pytest.mark.parametrize("damping", [0.001, 0.01, 1.0])
def test_upper_factor_of_the_inverse(cols: int, damping: float) -> None:
    h = damp_moment(correlated(cols), damping)
    u = compute_inverse_factor(correlated(cols), damping)
    torch.testing.assert_close(u, u.triu())
    torch.testing.assert_close(u.T @ u, torch.linalg.inv(h), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(u, torch.linalg.cholesky(torch.linalg.inv(h), upper=True), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("cols", [7, 8, 30])
def test_a_wide_moment_is_inverted_piece_by_piece(cols: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compute_inverse_factor(correlated(cols), 0.01)
    monkeypatch.setattr(curvature, "ROWS_AT_ONCE", 4)
    torch.testing.assert_close(compute_inverse_factor(correlated(cols), 0.01), whole, rtol=1e-10, atol=1e-10)


def test_lower_factor_is_a_root() -> None:
    root = compute_lower_factor(correlated(40), 0.01)
    torch.testing.assert_close(root @ root.T, damp_moment(correlated(40), 0.01))


def test_damping_is_a_share_of_the_mean_diagonal() -> None:
    h = torch.diag(torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(damp_moment(h, 0.5), torch.diag(torch.tensor([2.0, 4.0], dtype=torch.float64)))


def test_nothing_measured_stands_for_the_identity() -> None:
    torch.testing.assert_close(compute_inverse_factor(torch.zeros(3, 3), 0.0), torch.eye(3, dtype=torch.float64))


def test_a_singular_moment_without_damping_says_what_to_do() -> None:
    with pytest.raises(
        ShapeError, match=r"second moment of 4 columns is singular at damping 0.0; use a larger damping \(0.01 is"
    ):
        compute_inverse_factor(torch.ones(4, 4), 0.0)
