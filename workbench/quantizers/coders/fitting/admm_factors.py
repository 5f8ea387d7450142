"""Two thin sign matrices whose product approximates a matrix: signs by ADMM, magnitudes by least squares.

    W ≈ diag(row) · left · diag(middle) · right · diag(column)      left [rows, r], right [r, cols] of ±1

"Nearest" is tr(E H Eᵀ) for the whole second moment H. NanoQuant (arXiv 2602.06694) and DBF (arXiv 2505.11076) weigh rows and
columns only; here the left step sees H, and the right step is solved exactly in the eigenvectors of H.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.quantizers.coders.fitting.least_squares import compute_row_cost, solve, solve_least_squares
from workbench.quantizers.curvature import damp_moment
from workbench.quantizers.storage_rounding import round_to_fp16

DAMPING = 0.01  # of the moment, as a share of its mean diagonal
ADMM_RIDGE = 0.03  # of either least-squares step, beside its pull towards signs
POWER = 5  # iterations for the leading singular pair of magnitudes
ROUNDS = 3  # over the magnitudes, each solved with the others fixed


@dataclass(frozen=True)
class SignFactors:
    """diag(row) · left · diag(middle) · right · diag(column): `left [rows, r]` and `right [r, cols]` of ±1, the other three
    magnitudes `[rows]`, `[cols]` and where wanted `[r]`.
    """

    left: Tensor
    right: Tensor
    row: Tensor
    column: Tensor
    middle: Tensor | None = None


@dataclass(frozen=True)
class Target:
    """What is to be factored, in a basis where every input has the same energy: w' = w · diag(energy), H' with a diagonal of 1.

    `moment` None stands for the identity, `values, vectors` are its eigenvalues and eigenvectors. `row_unit` and `column_unit`
    turn magnitudes of this basis into stored ones, so that both factors are about equally large. Where rows are weighted, their
    weights are in w' too, and `row_unit [rows]` takes them out again. `size` is the energy of one unit of w'.
    """

    w: Tensor
    moment: Tensor | None
    values: Tensor
    vectors: Tensor | None
    row_unit: Tensor
    column_unit: Tensor
    size: float

    @classmethod
    def from_weights(cls, w: Tensor, moment: Tensor | None, *, diagonal: bool, rows: Tensor | None = None) -> "Target":
        """The target for `w [rows, cols]`, not all zero, under `moment`, of which `diagonal` leaves only the diagonal.

        An error in row i counts `rows[i]` times; weights are relative, and slightly damped.
        """
        if rows is not None and rows.any():
            root = (rows / rows.mean() + DAMPING).sqrt()
            target = cls.from_weights(w * root[:, None], moment, diagonal=diagonal)
            return replace(target, row_unit=target.row_unit / root)
        largest = w.abs().max()
        size = largest * (w / largest).square().mean().sqrt()
        unit = size.sqrt()
        energy_unit = unit.item() ** 4
        if moment is None:
            return cls(w / size, None, torch.ones(w.shape[1]), None, unit, unit, energy_unit)
        h = damp_moment(moment, DAMPING)
        energy = (h.diagonal() / h.diagonal().mean()).sqrt()
        column_unit = (unit / energy).float()
        if diagonal:
            return cls((w / size * energy).float(), None, torch.ones(w.shape[1]), None, unit, column_unit, energy_unit)
        h = h / h.diagonal().sqrt()[:, None] / h.diagonal().sqrt()
        values, vectors = torch.linalg.eigh(h)
        weighted = (w / size * energy).float()
        return cls(weighted, h.float(), values.clamp(min=0).float(), vectors.float(), unit, column_unit, energy_unit)

    def times_moment(self, x: Tensor) -> Tensor:
        """x H'."""
        return x if self.moment is None else x @ self.moment

    def turn(self, x: Tensor) -> Tensor:
        """`x [cols, k]` in the eigenvectors of H'."""
        return x if self.vectors is None else self.vectors.mT @ x

    def turn_back(self, x: Tensor) -> Tensor:
        """The inverse of `turn`."""
        return x if self.vectors is None else self.vectors @ x


def draw_random_start(target: Target, rank: int) -> tuple[Tensor, Tensor]:
    """Normal numbers `[rows, rank]` and `[cols, rank]`, always the same."""
    draw = torch.Generator().manual_seed(0)
    rows, cols = target.w.shape
    return torch.randn(rows, rank, generator=draw), torch.randn(cols, rank, generator=draw)


def compute_singular_start(target: Target, rank: int) -> tuple[Tensor, Tensor]:
    """The best factors of real numbers, their singular values shared out evenly; `rank` at most the smaller side."""
    root = target.values.clamp(min=1e-6).sqrt()
    turned = target.turn(target.w.mT).mT * root
    u, s, vt = torch.linalg.svd(turned, full_matrices=False)
    half = s[:rank].sqrt()
    return u[:, :rank] * half, target.turn_back((half[:, None] * vt[:rank] / root).mT)


def search(target: Target, left: Tensor, right: Tensor, sweeps: int, *, middle: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """ADMM from a start: real factors `[rows, r]` and `[cols, r]` whose signs are the answer, after each sweep.

    A sweep solves each factor by least squares, pulled towards its nearest stored form; the pull grows evenly to its full
    strength in the last sweep.
    """
    pushed = target.turn(target.times_moment(target.w).mT)  # H' w'ᵀ in the eigenvectors
    near_left, near_right = _find_nearest_factor(left, middle=middle), _find_nearest_factor(right, middle=middle)
    lag_left, lag_right = torch.zeros_like(left), torch.zeros_like(right)
    for sweep in range(sweeps):
        pull = (sweep + 1) / sweeps
        basis = target.turn(_normalize_columns(near_right))
        left = solve_ridge(basis.mT @ (target.values[:, None] * basis), pushed.mT @ basis, pull, near_left - lag_left)
        near_left = _find_nearest_factor(left + lag_left, middle=middle)
        lag_left = lag_left + left - near_left
        basis = _normalize_columns(near_left)
        right = target.turn_back(
            solve_two_sided(basis.mT @ basis, target.values, pushed @ basis, pull, target.turn(near_right - lag_right))
        )
        near_right = _find_nearest_factor(right + lag_right, middle=middle)
        lag_right = lag_right + right - near_right
        yield left + lag_left, right + lag_right


def solve_ridge(gram: Tensor, pushed: Tensor, pull: float, aim: Tensor) -> Tensor:
    """The factor X that solves X (G + (pull + RIDGE) g I) = pushed + pull g aim, with g the mean diagonal of G."""
    level = gram.diagonal().mean()
    eye = torch.eye(len(gram))
    factor = torch.linalg.cholesky(gram + (pull + ADMM_RIDGE) * level * eye)
    return torch.cholesky_solve((pushed + pull * level * aim).mT, factor).mT


def solve_two_sided(gram: Tensor, values: Tensor, pushed: Tensor, pull: float, aim: Tensor) -> Tensor:
    """The factor X that solves diag(values) X G + (pull + RIDGE) g X = pushed + pull g aim, with g the mean diagonal of G."""
    level = gram.diagonal().mean()
    eigenvalues, vectors = torch.linalg.eigh(gram)
    turned = (pushed + pull * level * aim) @ vectors
    return (turned / (values[:, None] * eigenvalues.clamp(min=0) + (pull + ADMM_RIDGE) * level)) @ vectors.mT


def _find_nearest_factor(factor: Tensor, *, middle: bool) -> Tensor:
    """The nearest stored form of a factor `[k, r]`: signs with a magnitude a row, and one a column where there is a `middle`."""
    row_sizes, shared = _fit_magnitudes(factor, middle=middle)
    return _compute_signs(factor) * row_sizes[:, None] * shared


def _fit_magnitudes(factor: Tensor, *, middle: bool) -> tuple[Tensor, Tensor]:
    """Magnitudes `[k]` and `[r]` of which |factor| `[k, r]` is nearly the product; without `middle` the second are 1."""
    size = factor.abs()
    row_sizes, shared = size.mean(1), torch.ones(factor.shape[1])
    if not middle:
        return row_sizes, shared
    for _ in range(POWER):
        shared = size.mT @ row_sizes / row_sizes.square().sum().clamp(min=1e-30)
        row_sizes = size @ shared / shared.square().sum().clamp(min=1e-30)
    return row_sizes, shared


def _compute_signs(x: Tensor) -> Tensor:
    """±1; zero is +1."""
    return torch.where(x >= 0, 1.0, -1.0)


def _normalize_columns(x: Tensor) -> Tensor:
    """Columns of length 1; zero columns stay."""
    return x / x.norm(dim=0).clamp(min=1e-20)


def build_parameters(left: Tensor, right: Tensor, *, middle: bool) -> SignFactors:
    """The signs of real factors `left [rows, r]` and `right [cols, r]` with magnitudes that are not yet settled."""
    row, of_left = _fit_magnitudes(left, middle=middle)
    column, of_right = _fit_magnitudes(right, middle=middle)
    column = column / column.square().mean().sqrt().clamp(min=1e-20) / left.shape[1] ** 0.25  # about what rows will have
    signs = _compute_signs(left), _compute_signs(right.mT).contiguous()
    return SignFactors(*signs, row, column, of_left * of_right if middle else None)


def multiply_factors(params: SignFactors) -> Tensor:
    """The matrix `[rows, cols]` that factors stand for."""
    left = params.left * params.row[:, None]
    return (left if params.middle is None else left * params.middle) @ (params.right * params.column)


def _compute_loss(target: Target, params: SignFactors) -> float:
    """tr(E H' Eᵀ)."""
    return compute_row_cost(target.w - multiply_factors(params), target.moment).sum(dtype=torch.float64).item()


def settle(target: Target, params: SignFactors) -> tuple[SignFactors, float]:
    """Magnitudes by least squares for fixed signs, as they will be stored, and what they lose."""
    best = _improve_magnitudes(target, params)
    least = _compute_loss(target, best)
    for _ in range(ROUNDS - 1):
        trial = _improve_magnitudes(target, best)
        now = _compute_loss(target, trial)
        if not now < least:
            break
        best, least = trial, now
    return best, least


def _improve_magnitudes(target: Target, params: SignFactors) -> SignFactors:
    """Row, column, middle and again row magnitudes, each for the others as they are, rounded as they will be stored."""
    improved = replace(params, row=solve_row_magnitudes(target, params))
    improved = replace(improved, column=solve_column_magnitudes(target, improved))
    if improved.middle is not None:
        improved = replace(improved, middle=round_to_fp16(solve_middle_magnitudes(target, improved)))
    return replace(improved, row=solve_row_magnitudes(target, improved))


def solve_row_magnitudes(target: Target, params: SignFactors) -> Tensor:
    """`[rows]`, every row by itself."""
    unit = multiply_factors(replace(params, row=torch.ones_like(params.row)))
    solution = solve_least_squares(target.w, unit[None], unit.shape[1], target.moment)[0, :, 0]
    return round_to_fp16(solution * target.row_unit) / target.row_unit


def solve_column_magnitudes(target: Target, params: SignFactors) -> Tensor:
    """`[cols]`, together where a moment couples them."""
    unit = multiply_factors(replace(params, column=torch.ones_like(params.column)))
    if target.moment is None:
        solution = solve_least_squares(target.w.mT, unit.mT[None], unit.shape[0], None)[0, :, 0]
    else:
        gram = (unit.mT @ unit) * target.moment
        solution = solve(gram[None], (unit * (target.w @ target.moment)).sum(0)[None])[0]
    return round_to_fp16(solution * target.column_unit) / target.column_unit


def solve_middle_magnitudes(target: Target, params: SignFactors) -> Tensor:
    """`[r]`, together."""
    left, right = params.left * params.row[:, None], params.right * params.column
    pushed = target.times_moment(right)
    gram = (left.mT @ left) * (pushed @ right.mT)
    return solve(gram[None], (left * (target.w @ pushed.mT)).sum(0)[None])[0]


def convert_to_stored(target: Target, params: SignFactors) -> SignFactors:
    """The same with `row` and `column` as they are stored, for the matrix in its own basis."""
    return replace(
        params, row=round_to_fp16(params.row * target.row_unit), column=round_to_fp16(params.column * target.column_unit)
    )
