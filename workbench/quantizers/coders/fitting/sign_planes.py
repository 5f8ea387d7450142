"""Sums of sign planes: choose signs for given scales, scales for given signs, and alternate between the two.

    value = Σ_p scale_p · column_scale_p · sign_p + mean

Codes are integers whose bit p is 1 where sign_p is +1.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

from workbench.quantizers.coders.fitting.column_groups import stack_groups
from workbench.quantizers.coders.fitting.least_squares import compute_row_cost, solve_least_squares
from workbench.quantizers.contract import Fit, WatchedRows
from workbench.quantizers.curvature import damp_moment
from workbench.quantizers.storage_rounding import round_to_fp16

DAMPING = 0.01  # of the moment in `refit`
WATCHED = 8  # rows whose scales and means are reported sweep by sweep


@dataclass(frozen=True)
class PlaneScales:
    """Parameters of one span, rounded to fp16: `scale [planes, rows]`, optional `mean [rows]`, `column_scale [planes, span]`."""

    scale: Tensor
    mean: Tensor | None = None
    column_scale: Tensor | None = None


ScalesT = TypeVar("ScalesT", bound=PlaneScales)
Choose = Callable[[Tensor, ScalesT], Tensor]  # signs [planes, rows, cols] for given parameters


def compute_magnitudes(params: PlaneScales, columns: slice) -> Tensor:
    """scale · column_scale, `[planes, rows, k]` (or `[planes, rows, 1]` where columns have no scale)."""
    size = params.scale[..., None]
    return size if params.column_scale is None else size * params.column_scale[:, None, columns]


def subtract_mean(w: Tensor, params: PlaneScales) -> Tensor:
    """w − mean."""
    return w if params.mean is None else w - params.mean[:, None]


def sum_planes(signs: Tensor, params: PlaneScales, columns: slice) -> Tensor:
    """Σ_p scale · column_scale · sign + mean, `[rows, k]`, added in the order of the stored format."""
    total = torch.zeros(signs.shape[1:])
    for plane in compute_magnitudes(params, columns) * signs:
        total += plane
    return total if params.mean is None else total + params.mean[:, None]


def choose_nearest_codes(w: Tensor, params: PlaneScales, columns: slice) -> Tensor:
    """The code whose value is nearest to each weight, uint8 `[rows, k]`; ties go to +1."""
    rest = subtract_mean(w, params)
    size = compute_magnitudes(params, columns)
    if len(size) == 1:
        return (rest * torch.where(size[0] < 0, -1.0, 1.0) >= 0).to(torch.uint8)
    best = torch.full_like(w, torch.inf)
    codes = torch.zeros_like(w, dtype=torch.uint8)
    for code in sorted(range(1 << len(size)), key=lambda c: (-bin(c).count("1"), c)):
        level = sum(s if code >> p & 1 else -s for p, s in enumerate(size))
        distance = (rest - level).abs()
        closer = distance < best
        best = torch.where(closer, distance, best)
        codes.masked_fill_(closer, code)
    return codes


def decode_signs(codes: Tensor, planes: int) -> Tensor:
    """±1 `[planes, rows, k]`."""
    return torch.stack([(codes >> p & 1) for p in range(planes)]).float() * 2 - 1


def choose_nearest_signs(w: Tensor, params: PlaneScales) -> Tensor:
    """Signs of the nearest value for a whole span."""
    return decode_signs(choose_nearest_codes(w, params, slice(0, w.shape[1])), len(params.scale))


def fit_greedy_planes(w: Tensor, mask: Tensor, planes: int, mean: bool, columns: bool, over: Tensor) -> PlaneScales:
    """Closed-form start: the mean, then plane by plane the sign of what is left and its mean size (and column sizes).

    `over` is the mask of weights that averages run over. It is `mask`, except for the released PB-LLM code, which also
    averages over the zeros that it put outside its mask.
    """
    count = over.sum(1).clamp(min=1)
    rest = w * mask
    row_mean = round_to_fp16(rest.sum(1) / count) if mean else None
    if row_mean is not None:
        rest = (rest - row_mean[:, None]) * over
    sizes, column_sizes = [], []
    for _ in range(planes):
        size = rest.abs().sum(1) / count
        level = size[:, None]
        if columns:
            ratio = torch.where(level > 0, rest.abs() / level, 0.0)
            column_size = ratio.sum(0) / mask.sum(0).clamp(min=1)
            column_sizes.append(column_size)
            level = level * column_size
        sizes.append(size)
        rest = rest - torch.where(rest >= 0, level, -level) * over
    column_scale = round_to_fp16(torch.stack(column_sizes)) if columns else None
    return PlaneScales(round_to_fp16(torch.stack(sizes)), row_mean, column_scale)


def alternate(w: Tensor, mask: Tensor, params: ScalesT, sweeps: int, choose: Choose[ScalesT]) -> Fit[ScalesT]:
    """Refine scales and signs in turn, at most `sweeps` times; errors never rise and the best parameters are returned.

    A sweep solves mean and scales together by least squares, then each plane's column scales, then chooses signs again.
    The alternating refined binarization of ARB-LLM (arXiv 2410.03129, first and second order, and RC with column scales)
    updates mean and scales one after the other instead, which needs more sweeps for the same point.
    """

    def error(signs: Tensor, params: PlaneScales) -> float:
        return ((sum_planes(signs, params, slice(0, w.shape[1])) - w) * mask).square().sum(dtype=torch.float64).item()

    signs = choose(w, params)
    errors, path = [error(signs, params)], [copy_watched_rows(params)]
    for _ in range(sweeps):
        trial = refine(w, mask, signs, params)
        signs = choose(w, trial)
        now = error(signs, trial)
        if now >= errors[-1]:
            break
        params = trial
        errors.append(now)
        path.append(copy_watched_rows(params))
    return Fit(params, tuple(errors), tuple(path))


def copy_watched_rows(params: PlaneScales) -> WatchedRows:
    """Scales and means of the first rows, as they are now."""
    mean = None if params.mean is None else params.mean[:WATCHED].clone()
    return WatchedRows(params.scale[:, :WATCHED].clone(), mean)


def refine(w: Tensor, mask: Tensor, signs: Tensor, params: ScalesT) -> ScalesT:
    """Better mean, scales and column scales of one span for fixed signs."""
    everywhere = slice(0, w.shape[1])
    basis = _build_unit_basis(signs, mask, params.column_scale, params.mean is not None)
    solution = round_to_fp16(solve_least_squares(w * mask, basis, w.shape[1], None)[..., 0])
    planes = len(signs)
    column = None if params.column_scale is None else params.column_scale.clone()  # improved in place below, plane by plane
    mean = None if params.mean is None else solution[planes]
    better = replace(params, scale=solution[:planes], mean=mean, column_scale=column)
    if column is not None:
        for p in range(planes):
            lever = better.scale[p][:, None] * signs[p] * mask
            rest = (w - sum_planes(signs, better, everywhere)) * mask + lever * column[p]
            power = lever.square().sum(0)
            column[p] = round_to_fp16(torch.where(power > 0, (lever * rest).sum(0) / power, column[p]))
    return better


def _build_unit_basis(signs: Tensor, mask: Tensor, column_scale: Tensor | None, mean: bool) -> Tensor:
    """What one unit of each plane's scale (and of the mean) adds, `[planes (+ 1), rows, cols]`."""
    basis = signs * mask if column_scale is None else signs * column_scale[:, None] * mask
    return torch.cat([basis, mask.to(basis.dtype)[None]]) if mean else basis


def refit(target: Tensor, signs: Tensor, params: list[ScalesT], span: int, mask: Tensor, moment: Tensor | None) -> list[ScalesT]:
    """Scales and means of the whole matrix by least squares for fixed signs, under the slightly damped `moment`.

    Every row keeps the better of old and new, measured under `moment` itself and after rounding to fp16. Without damping, a
    moment of fewer tokens than columns would be satisfied by wild scales. `moment` may be one for each group of rows.
    """
    planes, means, column_scales = len(signs), _list_used(p.mean for p in params), _list_used(p.column_scale for p in params)
    basis = _build_unit_basis(signs, mask, torch.cat(column_scales, 1) if column_scales else None, bool(means))
    old = stack_groups([p.scale for p in params])
    if means:
        old = torch.cat([old, stack_groups(means)[None]])
    tame = None if moment is None else _damp(moment)
    new = round_to_fp16(solve_least_squares(target, basis, span, tame))
    before, after = (compute_row_cost(target - sum_scaled_basis(scales, basis, span), moment) for scales in (old, new))
    better = torch.where((after < before)[:, None], new, old)
    refitted = [replace(p, scale=better[:planes, :, g]) for g, p in enumerate(params)]
    return [replace(p, mean=better[planes, :, g]) for g, p in enumerate(refitted)] if means else refitted


def _damp(moment: Tensor) -> Tensor:
    """The moment, or the moment of each group of rows, made safely invertible."""
    if moment.ndim == 3:
        return torch.stack([_damp(one) for one in moment])
    return damp_moment(moment, DAMPING).to(moment.dtype)


def _list_used(tensors: Iterable[Tensor | None]) -> list[Tensor]:
    """One parameter of all groups: of each group, or of none where it is not used."""
    return [tensor for tensor in tensors if tensor is not None]


def sum_scaled_basis(scales: Tensor, basis: Tensor, span: int) -> Tensor:
    """Σ_k scale_k ∘ basis_k, `[rows, cols]`."""
    total = torch.zeros(basis.shape[1:])
    for scale, unit in zip(scales, basis, strict=True):
        total += scale.repeat_interleave(span, -1)[:, : basis.shape[-1]] * unit
    return total


def pack_scale_tensors(params: Sequence[PlaneScales]) -> dict[str, Tensor]:
    """As stored, fp16: `scale [planes, rows, groups]`, where used `mean [rows, groups]`, `column_scale [planes, cols]`."""
    tensors = {"scale": stack_groups([p.scale for p in params]).half()}
    if means := _list_used(p.mean for p in params):
        tensors["mean"] = stack_groups(means).half()
    if column_scales := _list_used(p.column_scale for p in params):
        tensors["column_scale"] = torch.cat(column_scales, 1).half()
    return tensors
