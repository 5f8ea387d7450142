"""Error feedback against brute force, against a loop over columns, and against rounding to nearest."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.battery.cases import correlated, gaussian, quantize
from workbench import registry
from workbench.presets.preset import compose
from workbench.quantizers.assignment.feedback import feed_back, list_tile_batches
from workbench.quantizers.contract import Layout
from workbench.quantizers.curvature import compute_inverse_factor, damp_moment


def half_steps(w: Tensor, start: int, stop: int) -> Tensor:
    """A grid of step 1/2."""
    return (w[:, start:stop] * 2).round() / 2


def only_first(columns: int) -> Callable[[Tensor, int, int], Tensor]:
    """Round the first columns and leave the others where they are."""
    return lambda w, start, stop: half_steps(w, start, stop) if stop <= columns else w[:, start:stop].clone()


def drain(w: Tensor, h: Tensor, batches: list[list[tuple[int, int]]], quantize: Callable[[Tensor, int, int], Tensor]) -> Tensor:
    """The matrix after all batches, damping 0.01."""
    *_, last = feed_back(w.clone(), h, batches, 0.01, lambda w, start, stop, metric: quantize(w, start, stop))
    return last


def best_rest(error: Tensor, h: Tensor, coded: int) -> Tensor:
    """Brute force: the change of the uncoded columns with the least tr(E H Eᵀ), coded columns' error given."""
    return -error @ h[:coded, coded:] @ torch.linalg.inv(h[coded:, coded:])


@pytest.mark.parametrize("block", [1, 8, 32], ids="block-{}".format)
def test_the_error_goes_where_brute_force_puts_it(block: int) -> None:
    w, h = gaussian(6, 96).double(), correlated(96)
    batches = list_tile_batches(Layout(96, 1, 96), block)
    moved = drain(w, h, batches, only_first(64))
    expected = best_rest((moved - w)[:, :64], damp_moment(h, 0.01), 64)
    torch.testing.assert_close((moved - w)[:, 64:], expected, rtol=1e-9, atol=1e-9)


def test_the_metric_is_what_an_error_costs_after_the_best_repair() -> None:
    w, h, metrics = gaussian(6, 96).double(), correlated(96), list[Tensor | None]()

    def quantize(w: Tensor, start: int, stop: int, metric: Tensor | None) -> Tensor:
        metrics.append(metric)
        return half_steps(w, start, stop) if stop <= 8 else w[:, start:stop].clone()

    *_, moved = feed_back(w.clone(), h, list_tile_batches(Layout(96, 8, 96), 1), 0.01, quantize)
    change = moved - w
    lost = ((change @ damp_moment(h, 0.01)) * change).sum(1)
    cost = ((change[:, :8] @ metrics[0]) * change[:, :8]).sum(1)
    torch.testing.assert_close(cost / cost.sum(), lost / lost.sum())


def test_exact_solve_beats_the_released_update_which_beats_none() -> None:
    w, h = gaussian(64, 256).double(), correlated(256)
    true, u = damp_moment(h, 0.01), compute_inverse_factor(h, 0.01)
    exact = drain(w, h, list_tile_batches(Layout(256, 1, 256), 128), only_first(128))
    error = exact[:, :128] - w[:, :128]
    released = exact.clone()
    released[:, 128:] = w[:, 128:] + (error / u.diagonal()[:128]) @ u[:128, 128:]
    none = torch.cat([exact[:, :128], w[:, 128:]], 1)

    def lost(values: Tensor) -> float:
        return float((((values - w) @ true) * (values - w)).sum())

    assert lost(exact) < 0.97 * lost(released)
    assert lost(released) < 0.97 * lost(none)


def ldlq(w: Tensor, h: Tensor) -> Tensor:
    """QuIP's form (arXiv 2307.13304), one column at a time: round each column plus the earlier errors times H's unit factor."""
    factor = torch.linalg.cholesky(h.flip(0, 1)).flip(0, 1)
    unit = factor / factor.diagonal()
    coded = torch.zeros_like(w)
    for k in range(w.shape[1]):
        target = w[:, k] + (w - coded)[:, :k] @ unit[:k, k]
        coded[:, k] = (target * 2).round() / 2
    return coded


def test_column_feedback_is_ldlq() -> None:
    w, h = gaussian(16, 300).double(), correlated(300)
    ours = drain(w, h, list_tile_batches(Layout(300, 1, 300), 1), half_steps)
    assert torch.equal(ours, ldlq(w, damp_moment(h, 0.01)))


def test_visiting_columns_in_another_order_is_permuting_them() -> None:
    w, h = gaussian(8, 150).double(), correlated(150)
    order = torch.randperm(150, generator=torch.Generator().manual_seed(2))
    batches = [[(int(c), int(c) + 1) for c in piece] for piece in order.split(40)]
    ours = drain(w, h, batches, half_steps)
    permuted = drain(w[:, order], h[order][:, order], list_tile_batches(Layout(150, 1, 150), 1), half_steps)
    assert torch.equal(ours[:, order], permuted)


@pytest.mark.parametrize("batch", [1, 7, 150], ids="batch-{}".format)
def test_batches_change_nothing_but_the_speed(batch: int) -> None:
    w, h = gaussian(8, 150).double(), correlated(150)
    lazy = [[(c, c + 1) for c in range(start, min(start + batch, 150))] for start in range(0, 150, batch)]
    expected = drain(w, h, list_tile_batches(Layout(150, 1, 150), 1), half_steps)
    torch.testing.assert_close(drain(w, h, lazy, half_steps), expected)


ASSIGNMENTS = {
    "nearest": registry.make("assignment", "nearest"),
    "block": registry.make("assignment", "block-feedback"),
    "column": registry.make("assignment", "column-feedback"),
    "static": registry.make("assignment", "column-feedback", fit_first=True),
    "order": registry.make("assignment", "column-feedback", order="moment"),
}


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_feedback_beats_nearest_and_finer_beats_coarser(bits: int) -> None:
    error = dict.fromkeys(ASSIGNMENTS, 0.0)
    for seed in range(3):
        w, h = gaussian(48, 256, seed), correlated(256, seed=10 + seed)
        for name, assignment in ASSIGNMENTS.items():
            recipe = compose(registry.make("coder", "uniform", bits=bits, group=64), assignment=assignment)
            error[name] += quantize(recipe, w, h).error
    assert error["column"] < error["block"] < error["nearest"]
    assert error["static"] < error["block"]
    assert error["order"] < error["column"]


def test_static_groups_keep_the_scales_of_nearest() -> None:
    w, h = gaussian(16, 256), correlated(256)
    packed = [quantize(compose(registry.make("coder", "uniform"), assignment=a), w, h).packed for a in ASSIGNMENTS.values()]
    nearest, block, column, static, order = (p.tensors["scale"] for p in packed)
    assert torch.equal(static, nearest)
    assert torch.equal(order, nearest)
    assert not torch.equal(column, nearest)
    assert not torch.equal(block, nearest)


@pytest.mark.parametrize(
    ("layout", "size", "expected"),
    [
        (Layout(300, 1, 300), 128, [(0, 128), (128, 256), (256, 300)]),
        (Layout(300, 1, 64), 128, [(0, 128), (128, 256), (256, 300)]),
        (Layout(300, 1, 48), 128, [(0, 96), (96, 192), (192, 288), (288, 300)]),
        (Layout(300, 1, 150), 128, [(0, 128), (128, 150), (150, 278), (278, 300)]),
        (Layout(303, 10, 303), 128, [(0, 120), (120, 240), (240, 303)]),
        (Layout(40, 20, 40), 8, [(0, 20), (20, 40)]),
        (Layout(5, 1, 5), 128, [(0, 5)]),
    ],
    ids=str,
)
def test_batches_hold_whole_steps_and_never_parts_of_two_spans(
    layout: Layout, size: int, expected: list[tuple[int, int]]
) -> None:
    assert layout.batches(size) == expected


def test_a_group_is_fitted_on_columns_that_have_all_earlier_errors() -> None:
    fitted: dict[int, Tensor] = {}

    def quantize(w: Tensor, start: int, stop: int) -> Tensor:
        if start % 96 == 0:
            fitted[start] = w[:, start : start + 96].clone()
        return half_steps(w, start, stop)

    w, h = gaussian(4, 288).double(), correlated(288)
    drain(w, h, list_tile_batches(Layout(288, 1, 96), 1), quantize)
    for start, group in fitted.items():
        stopped = drain(w, h, list_tile_batches(Layout(288, 1, 288), 1), only_first(start))
        torch.testing.assert_close(group, stopped[:, start : start + 96])


@pytest.mark.parametrize("ahead", [False, True], ids=["reached", "ahead"])
def test_groups_of_a_batch_are_fitted_before_or_after_its_own_errors(ahead: bool) -> None:
    """The second of two groups of a batch is fitted on the original weights, or on weights that the first one's errors moved."""
    w, h = gaussian(16, 128), correlated(128)
    column = registry.make("assignment", "column-feedback", fit_ahead=ahead)
    scale = quantize(compose(registry.make("coder", "uniform", group=64), assignment=column), w, h).packed.tensors["scale"]
    plain = quantize(compose(registry.make("coder", "uniform", group=64)), w, h).packed.tensors["scale"]
    assert torch.equal(scale[:, 0], plain[:, 0])
    assert torch.equal(scale[:, 1], plain[:, 1]) == ahead


def test_later_batches_are_fitted_on_what_earlier_ones_have_moved() -> None:
    w, h = gaussian(16, 256), correlated(256)
    column = registry.make("assignment", "column-feedback", fit_ahead=True)
    scale = quantize(compose(registry.make("coder", "uniform", group=64), assignment=column), w, h).packed.tensors["scale"]
    plain = quantize(compose(registry.make("coder", "uniform", group=64)), w, h).packed.tensors["scale"]
    assert torch.equal(scale[:, :2], plain[:, :2])
    assert not torch.equal(scale[:, 2], plain[:, 2])
