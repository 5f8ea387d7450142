"""Sign planes as fitted by the released codes of BiLLM and ARB-LLM, one parameter after another, in float64.

    value = Σ_p size_p · column_p · sign_p + mean                on the mask, 0 elsewhere

`planes` solves mean and scales together and stops when nothing improves; here they take turns for a fixed number of sweeps
(arXiv 2402.04291; 2410.03129), which needs more of them for the same point and keeps signs that no longer fit.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

RELEASED_SWEEPS = 15
BELOW = 1e-8  # added to counts and squared lengths
BELOW_MOMENT = 1e-10


@dataclass(frozen=True)
class Planes:
    """`signs [planes, rows, cols]`, 0 off the mask; `size [planes, rows, 1]`, `mean [rows, 1]`, `column [planes, 1, cols]`."""

    signs: Tensor
    size: Tensor
    mean: Tensor
    column: Tensor

    def plane(self, number: int) -> Tensor:
        """What one plane adds."""
        return self.size[number] * self.column[number] * self.signs[number]

    def others(self, number: int) -> Tensor:
        """What all planes but one add."""
        total = torch.zeros_like(self.signs[0])
        for other in range(len(self.signs)):
            if other != number:
                total = total + self.plane(other)
        return total

    def values(self, mask: Tensor) -> Tensor:
        """The whole sum."""
        return self.others(-1) + self.mean * mask


def _compute_row_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the masked weights of each row, `[rows, 1]`; 0 where there are none."""
    return (x * mask).sum(1, keepdim=True) / mask.sum(1, keepdim=True).clamp(min=1)


def fit_residual_planes(x: Tensor, mask: Tensor, planes: int) -> tuple[Planes, Tensor]:
    """Closed form: each plane centres and codes what is left; also the shifts `[planes, rows, 1]`, whose sum is the mean."""
    rest = x * mask
    signs, sizes, shifts = [], [], []
    for _ in range(planes):
        shifts.append(_compute_row_mean(rest, mask))
        rest = (rest - shifts[-1]) * mask
        sizes.append(_compute_row_mean(rest.abs(), mask))
        signs.append(rest.sign())
        rest = rest - sizes[-1] * signs[-1]
    shift, stacked = torch.stack(shifts), torch.stack(signs)
    column = torch.ones(planes, 1, x.shape[1], dtype=x.dtype)
    return Planes(stacked, torch.stack(sizes), shift.sum(0), column), shift


def alternate(x: Tensor, mask: Tensor, planes: int, sweeps: int = RELEASED_SWEEPS) -> Planes:
    """ARB with a mean: mean, then each size, then signs, in turn."""
    x = x * mask
    now, count = fit_residual_planes(x, mask, planes)[0], mask.sum(1, keepdim=True) + BELOW
    for _ in range(sweeps):
        now = replace(now, mean=now.mean + _compute_row_mean(x - now.values(mask), mask))
        for p in range(planes):
            rest = x - now.mean * mask - now.others(p)
            now = _replace_size(now, p, (now.signs[p] * rest).sum(1, keepdim=True) / count)
        centred = (x - now.mean) * mask
        now = replace(now, signs=centred.sign()[None] if planes == 1 else _choose_nearest_pair(centred, now) * mask)
    return now


def alternate_columns(x: Tensor, mask: Tensor, planes: int, sweeps: int = RELEASED_SWEEPS) -> Planes:
    """ARB-RC: sizes of rows, then of columns, plane by plane, then signs of two planes; one plane keeps its first signs."""
    x = x * mask
    count, rest = mask.sum(0, keepdim=True).clamp(min=1), x
    signs, sizes, columns = [], [], []
    for _ in range(planes):
        size = _compute_row_mean(rest.abs(), mask)
        column = torch.where(size > 0, rest.abs() / size, 0.0).sum(0, keepdim=True) / count
        signs.append(rest.sign())
        rest = rest - size * column * signs[-1]
        sizes.append(size)
        columns.append(column)
    now = Planes(torch.stack(signs), torch.stack(sizes), torch.zeros_like(sizes[0]), torch.stack(columns))
    for _ in range(sweeps):
        for p in range(planes):
            rest = x - now.others(p)
            now = _replace_size(now, p, _compute_projection(rest, now.column[p] * now.signs[p], 1))
            column = now.column.clone()
            column[p] = _compute_projection(rest, now.size[p] * now.signs[p], 0)
            now = replace(now, column=column)
        if planes > 1:
            now = replace(now, signs=_choose_nearest_pair(x, now) * mask)
    return now


def fit_outputs(x: Tensor, mask: Tensor, now: Planes, moment: Tensor, sweeps: int = RELEASED_SWEEPS) -> Planes:
    """ARB-X: mean and sizes in turn once more, to lose least of the outputs under `moment [cols, cols]`; signs stay."""
    x, mask_values = x * mask, mask.to(x.dtype)

    def best(lever: Tensor, rest: Tensor) -> Tensor:
        reach = lever @ moment
        return (reach * rest).sum(1, keepdim=True) / ((reach * lever).sum(1, keepdim=True) + BELOW_MOMENT)

    for _ in range(sweeps):
        now = replace(now, mean=best(mask_values, x - now.others(-1)))
        for p in range(len(now.signs)):
            now = _replace_size(now, p, best(now.signs[p], x - now.mean * mask_values - now.others(p)))
    return now


def _replace_size(now: Planes, number: int, size: Tensor) -> Planes:
    """The same with another size of one plane."""
    sizes = now.size.clone()
    sizes[number] = size
    return replace(now, size=sizes)


def _compute_projection(target: Tensor, lever: Tensor, dim: int) -> Tensor:
    """How many `lever` make up `target`, along `dim`."""
    return (lever * target).sum(dim, keepdim=True) / (lever.square().sum(dim, keepdim=True) + BELOW)


def _choose_nearest_pair(x: Tensor, now: Planes) -> Tensor:
    """The two signs whose sum of sizes is nearest to each number, `[2, rows, cols]`; ties go to −1."""
    one, two = (now.size[p] * now.column[p] for p in range(2))
    signs = torch.tensor([(a, b) for a in (-1.0, 1.0) for b in (-1.0, 1.0)], dtype=x.dtype)
    best = torch.stack([(x - a * one - b * two).abs() for a, b in signs.tolist()]).argmin(0)
    return signs[best].movedim(-1, 0)
