"""Least-squares scales, against pseudo-inverses and against the scales they replace."""

import pytest
import torch
from torch import Tensor

from tests.battery.cases import correlated, gaussian, quantize
from workbench import registry
from workbench.presets.preset import compose
from workbench.quantizers.coders.fitting.least_squares import compute_row_cost, solve_least_squares, sum_groups
from workbench.quantizers.coders.fitting.sign_planes import sum_scaled_basis
from workbench.quantizers.curvature import compute_lower_factor


def brute(target: Tensor, basis: Tensor, span: int, root: Tensor) -> Tensor:
    """One pseudo-inverse a row over all groups' columns at once, whitened by a root of the moment; `[k, rows, groups]`."""
    k, rows, cols = basis.shape
    groups = -(-cols // span)
    found = torch.empty(k, rows, groups, dtype=torch.float64)
    owner = torch.arange(cols) // span
    for r in range(rows):
        design = torch.stack([torch.where(owner == g, basis[i, r], 0.0) for i in range(k) for g in range(groups)]).double()
        found[:, r] = (torch.linalg.pinv((design @ root).T) @ (target[r].double() @ root)).view(k, groups)
    return found


@pytest.mark.parametrize("span", [20, 8, 7], ids="span-{}".format)
@pytest.mark.parametrize("k", [1, 2, 3])
@pytest.mark.parametrize("calibrated", [False, True], ids=["plain", "calibrated"])
def test_scales_are_the_least_squares_solution(span: int, k: int, calibrated: bool) -> None:
    target = gaussian(5, 20)
    basis = torch.stack([gaussian(5, 20, seed=3 + i).sign() for i in range(k)])
    h = correlated(20) if calibrated else None
    root = compute_lower_factor(correlated(20), 0.0) if calibrated else torch.eye(20, dtype=torch.float64)
    found = solve_least_squares(target, basis, span, h)
    best = brute(target, basis, span, root).float()
    reached, least = (compute_row_cost(target - sum_scaled_basis(scales, basis, span), h) for scales in (found, best))
    torch.testing.assert_close(reached, least, rtol=1e-4, atol=1e-4)


def test_equal_planes_share_the_work() -> None:
    plane = gaussian(3, 16).sign()
    found = solve_least_squares(2 * plane, torch.stack([plane, plane]), 16, None)
    torch.testing.assert_close(found.sum(0), torch.full((3, 1), 2.0), rtol=1e-4, atol=1e-4)


def test_an_empty_mask_gives_zero() -> None:
    assert torch.equal(solve_least_squares(gaussian(3, 16), torch.zeros(2, 3, 16), 8, None), torch.zeros(2, 3, 2))


def test_group_sums_of_a_shorter_last_group() -> None:
    assert sum_groups(torch.ones(2, 10), 4).tolist() == [[4, 4, 2], [4, 4, 2]]


def test_cost_is_the_trace_by_rows() -> None:
    error, h = gaussian(4, 12), correlated(12)
    torch.testing.assert_close(compute_row_cost(error, h).sum(), torch.trace(error @ h @ error.T))
    torch.testing.assert_close(compute_row_cost(error, None), error.square().sum(1))


CODERS = {
    "sign": ("sign", {}),
    "sign-closed-form": ("sign", {"sweeps": 0, "mean": False}),
    "two-planes": ("sign", {"planes": 2}),
    "row-column": ("sign", {"scales": "row-column", "mean": False}),
    "groups": ("sign", {"scales": "group", "group": 64}),
    "codebook": ("binary-codebook", {}),
    "codebook-mean": ("binary-codebook", {"mean": True, "assignment": "hamming"}),
    "codebook-groups": ("binary-codebook", {"scales": "group", "group": 50}),
}


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("assignment", ["nearest", "block-feedback", "column-feedback"])
@pytest.mark.parametrize("calibrated", [False, True], ids=["plain", "calibrated"])
def test_rescaling_is_never_worse(coder: str, assignment: str, calibrated: bool) -> None:
    if not calibrated and assignment != "nearest":
        assignment = "nearest"
    name, settings = CODERS[coder]
    w, h = gaussian(32, 203), correlated(203) if calibrated else None
    off, on = (
        quantize(
            compose(registry.make("coder", name, rescale=flag, **settings), assignment=registry.make("assignment", assignment)),
            w,
            h,
        )
        for flag in (False, True)
    )
    assert on.error <= off.error * (1 + 1e-6)
    if calibrated:
        before, after = (compute_row_cost(w - layer.weight(), h) for layer in (off, on))
        assert (after <= before * (1 + 1e-5)).all()
        assert on.error < off.error


def test_two_coders_rescale_for_their_common_output() -> None:
    """Each coder sees what the other left, so the sum of both never gets worse under a moment that couples their columns."""
    split = registry.make("split", "salient-columns", share=0.3)
    w, h = gaussian(32, 200), correlated(200)
    off, on = (
        quantize(compose(*[registry.make("coder", "sign", planes=p, rescale=flag) for p in (1, 2)], split=split), w, h)
        for flag in (False, True)
    )
    assert on.error < off.error
