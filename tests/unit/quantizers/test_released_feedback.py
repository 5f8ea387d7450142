"""Feedback as released: what it zeroes first, and that it divides by the diagonal alone."""

import pytest
import torch
from torch import Tensor

from tests.battery.cases import correlated, gaussian
from workbench import registry
from workbench.errors import RecipeError
from workbench.quantizers.assignment.released_feedback import select_most_important
from workbench.quantizers.contract import Layout
from workbench.quantizers.curvature import compute_inverse_factor


def half_steps(w: Tensor, start: int, stop: int, metric: Tensor | None = None) -> Tensor:
    """Halves."""
    return (w[:, start:stop] * 2).round() / 2


def run(w: Tensor, h: Tensor, **settings: int) -> list[Tensor]:
    """The matrix after each block of 128 columns."""
    part = registry.make("assignment", "released-feedback", **settings)
    return [now.clone() for now in part.run(w.clone(), h, Layout(w.shape[1], 1, 128), half_steps)]


def test_a_blocks_error_over_the_diagonal_moves_the_columns_after_it() -> None:
    w, h = gaussian(6, 200), correlated(200)
    first, _ = run(w, h)
    u = compute_inverse_factor(h, 0.01).float()
    error = (w - half_steps(w, 0, 200))[:, :128] / u.diagonal()[:128]
    torch.testing.assert_close(first[:, 128:], w[:, 128:] - error @ u[:128, 128:], rtol=1e-4, atol=1e-4)


def test_columns_without_input_are_zero() -> None:
    h = correlated(140)
    h[[5, 130]], h[:, [5, 130]] = 0, 0
    last = run(gaussian(6, 140), h)[-1]
    assert (last[:, [5, 130]] == 0).all()
    assert (last[:, :5] != 0).any()


@pytest.mark.parametrize("kept", [2, 4, 7])
def test_exactly_so_many_of_eight_are_kept(kept: int) -> None:
    own = select_most_important(gaussian(10, 203), torch.ones(203), kept, 8)
    assert (own[:, :200].view(10, 25, 8).sum(-1) == kept).all()
    assert (own[:, 200:].sum(1) == max(3 - (8 - kept), 0)).all()


def test_a_weight_matters_by_its_share_of_row_and_column_and_by_its_input() -> None:
    w = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 8.0, 1.0, 1.0]])
    shares = torch.tensor([[0.5 + 0.1, 0.2 + 0.2, 0.75 + 0.3, 0.8 + 0.4]])
    expected = shares > shares.median(1, keepdim=True).values
    assert torch.equal(select_most_important(w, torch.ones(4), 2, 4)[:1], expected)
    assert select_most_important(w, torch.tensor([1e4, 1.0, 1e-4, 1.0]), 1, 4)[0].tolist() == [True, False, False, False]


def test_pruned_weights_of_later_blocks_are_filled_by_errors() -> None:
    seen: list[Tensor] = []

    def watch(w: Tensor, start: int, stop: int, metric: Tensor | None = None) -> Tensor:
        seen.append(w[:, start:stop].clone())
        return half_steps(w, start, stop)

    part = registry.make("assignment", "released-feedback", kept=4)
    list(part.run(gaussian(6, 256), correlated(256), Layout(256, 1, 128), watch))
    assert [int((block == 0).sum()) for block in seen] == [6 * 128 // 2, 0]


def test_more_kept_than_there_are_is_a_mistake() -> None:
    with pytest.raises(RecipeError, match="9 of 8 weights cannot be kept; use at most kept=8"):
        registry.make("assignment", "released-feedback", kept=9)
