"""Binary factors: planted ones are found, the steps of ADMM are the optima they claim, the bits are those asked for."""

from dataclasses import replace

import pytest
import torch

from tests.battery.cases import correlated, gaussian, quantize
from workbench import registry
from workbench.kernels import formats
from workbench.presets.preset import compose, make_part
from workbench.quantizers.coders.fitting import admm_factors
from workbench.quantizers.coders.fitting.admm_factors import Target
from workbench.quantizers.contract import Fit
from workbench.quantizers.pipeline import quantize_layer


def fitted(w: torch.Tensor, moment: torch.Tensor | None = None, **settings: object) -> Fit:
    return registry.make("coder", "binary-factors", **settings).fit(w, torch.ones_like(w, dtype=torch.bool), None, moment)


def planted(rows: int, cols: int, rank: int) -> torch.Tensor:
    row, column = gaussian(rows, 1, 3).abs() + 0.5, gaussian(1, cols, 4).abs() + 0.5
    return row * (gaussian(rows, rank, 5).sign() @ gaussian(rank, cols, 6).sign()) * column


def bits_for(rank: int, rows: int, cols: int) -> float:
    return ((16 + rank) * (rows + cols) + 14) / (rows * cols) + 1e-6


@pytest.mark.parametrize(("rows", "cols", "rank"), [(96, 128, 8), (96, 64, 4), (128, 128, 12)], ids=str)
def test_planted_factors_are_found(rows: int, cols: int, rank: int) -> None:
    w, coder = planted(rows, cols, rank), make_part("coder", "binary-factors", bits=bits_for(rank, rows, cols))
    plain, calibrated = quantize(compose(coder), w), quantize(compose(coder), w, correlated(cols))
    assert plain.packed.facts["rank"] == rank
    assert plain.relative_error < 1e-5
    assert calibrated.output_error < 0.01


@pytest.mark.parametrize("bits", [0.55, 0.8, 1.0, 1.7])
@pytest.mark.parametrize("middle", [False, True], ids=["two", "three"])
@pytest.mark.parametrize(("rows", "cols"), [(128, 256), (201, 77)], ids=str)
def test_stored_bits_are_those_asked_for(bits: float, middle: bool, rows: int, cols: int) -> None:
    coder = make_part("coder", "binary-factors", bits=bits, middle=middle, sweeps=1)
    stored = quantize(compose(coder), gaussian(rows, cols)).bits_per_weight
    next_rank = (rows + cols + 16 * middle + 14) / (rows * cols)
    assert bits - next_rank < stored <= bits


def test_large_ranks_are_whole_bytes() -> None:
    coder = registry.make("coder", "binary-factors", bits=1.0)
    assert (coder.rank(4096, 4096), coder.rank(4096, 4096) % 8) == (2024, 0)
    assert coder.rank(256, 256) == 111


def test_a_matrix_too_small_for_the_bits_gets_one_rank() -> None:
    result = quantize(compose(make_part("coder", "binary-factors", bits=0.5)), gaussian(4, 8))
    assert result.packed.facts["rank"] == 1
    assert result.bits_per_weight > 0.5


def test_the_left_step_is_the_optimum() -> None:
    gram, pushed, aim = correlated(6), gaussian(5, 6), gaussian(5, 6, 2)
    level = gram.diagonal().mean()
    x = admm_factors.solve_ridge(gram, pushed, 0.4, aim)
    right = pushed + 0.4 * level * aim
    torch.testing.assert_close(x @ gram + (0.4 + admm_factors.ADMM_RIDGE) * level * x, right, rtol=1e-4, atol=1e-4)


def test_the_right_step_is_the_optimum() -> None:
    gram, pushed, aim, values = correlated(6), gaussian(7, 6), gaussian(7, 6, 2), gaussian(1, 7, 3)[0].abs()
    level = gram.diagonal().mean()
    x = admm_factors.solve_two_sided(gram, values, pushed, 0.4, aim)
    right = pushed + 0.4 * level * aim
    torch.testing.assert_close(
        values[:, None] * (x @ gram) + (0.4 + admm_factors.ADMM_RIDGE) * level * x, right, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", ["row", "column", "middle"])
@pytest.mark.parametrize("calibrated", [False, True], ids=["plain", "calibrated"])
def test_magnitudes_cannot_be_improved_one_kind_at_a_time(name: str, calibrated: bool) -> None:
    """The gradient of the error in each kind vanishes, by autograd, up to the rounding to fp16."""
    target = Target.from_weights(gaussian(20, 30), correlated(30) if calibrated else None, diagonal=False)
    params = admm_factors.build_parameters(gaussian(20, 6, 7), gaussian(30, 6, 8), middle=True)
    solve = {
        "row": admm_factors.solve_row_magnitudes,
        "column": admm_factors.solve_column_magnitudes,
        "middle": admm_factors.solve_middle_magnitudes,
    }[name]

    def slope(values: torch.Tensor) -> torch.Tensor:
        values = values.clone().requires_grad_()
        loss = admm_factors.compute_row_cost(
            target.w - admm_factors.multiply_factors(replace(params, **{name: values})), target.moment
        ).sum()
        return torch.autograd.grad(loss, values)[0]

    assert slope(solve(target, params)).norm() < 0.01 * slope(getattr(params, name)).norm()


def test_the_singular_start_is_the_best_of_its_rank() -> None:
    w, h = gaussian(20, 30), correlated(30)
    target = Target.from_weights(w, h, diagonal=False)
    left, right = admm_factors.compute_singular_start(target, 5)
    root = torch.linalg.cholesky(target.moment)
    rest = torch.linalg.svdvals(target.w @ root)[5:].square().sum()
    error = admm_factors.compute_row_cost(target.w - left @ right.T, target.moment).sum()
    torch.testing.assert_close(error, rest, rtol=1e-3, atol=1e-3)


def test_admm_beats_its_start_and_more_sweeps_never_hurt_what_is_kept() -> None:
    w = gaussian(64, 96)
    trace = fitted(w, bits=0.9).sweeps
    start = fitted(w, bits=0.9, start="singular", sweeps=0).sweeps
    assert list(trace) == sorted(trace, reverse=True)
    assert trace[-1] < 0.8 * start[-1]


def test_the_last_sweep_is_the_error_of_what_is_returned() -> None:
    w, settings = 0.02 * gaussian(32, 48), {"bits": 1.2, "sweeps": 20}
    params = fitted(w, **settings).params
    assert fitted(w, **settings).sweeps[-1] == pytest.approx(
        (w - admm_factors.multiply_factors(params)).square().sum().item(), rel=1e-3
    )


def test_the_whole_moment_beats_its_diagonal() -> None:
    w, h = gaussian(64, 96), correlated(96)
    whole, diagonal = (
        quantize(compose(make_part("coder", "binary-factors", metric=metric)), w, h) for metric in ("moment", "diagonal")
    )
    plain = quantize(compose(make_part("coder", "binary-factors")), w)
    assert whole.output_error < 0.8 * diagonal.output_error
    assert plain.relative_error < diagonal.relative_error < whole.relative_error


def test_signs_are_stored_as_bits_and_nothing_else_is_large() -> None:
    packed = quantize(compose(make_part("coder", "binary-factors", bits=0.9, middle=True, sweeps=3)), gaussian(64, 96)).packed
    rank = packed.facts["rank"]
    sizes = {name: tensor.nbytes for name, tensor in packed.tensors.items()}
    assert sizes == {"left": 8 * rank, "right": 12 * rank, "row": 128, "column": 192, "middle": 2 * rank}
    assert formats.decode(packed).shape == (64, 96)


@pytest.mark.parametrize("assignment", ["nearest", "block-feedback"])
def test_a_layer_tells_how_far_its_sweeps_are_and_can_be_stopped(assignment: str) -> None:
    w, moment = gaussian(40, 32), correlated(32)
    recipe = compose(make_part("coder", "binary-factors", sweeps=20), assignment=make_part("assignment", assignment))
    fractions = [step.fraction for step in quantize_layer(w, moment, recipe)]
    assert fractions == sorted(fractions)
    assert sum(0 < share < 1 for share in fractions) == 19
    assert fractions[-1] == 1
    stopped = quantize_layer(w, moment, recipe)
    next(stopped)
    stopped.close()
