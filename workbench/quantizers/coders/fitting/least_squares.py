"""Least-squares scales: for fixed signs, the scales with the lowest error.

    values = Σ_p scale_p ∘ basis_p                basis_p [rows, cols]: what one unit of scale p adds; 0 outside the mask
    scale  = argmin tr(E H Eᵀ),  E = target − values

Every row is a small problem of its own, and without a moment every group of a row is.
"""

import torch
from torch import Tensor

from workbench.guided_moments import split_rows

RIDGE = 1e-6  # share of the mean diagonal that keeps a singular problem (two equal planes) solvable


def solve_least_squares(target: Tensor, basis: Tensor, span: int, moment: Tensor | None) -> Tensor:
    """Scales `[k, rows, groups]` for `target [rows, cols]` and `basis [k, rows, cols]`, groups of `span` columns.

    A moment of three dimensions has one for each group of rows.
    """
    if moment is not None and moment.ndim == 3:
        parts = zip(split_rows(len(target), len(moment)), moment, strict=True)
        return torch.cat([solve_least_squares(target[part], basis[:, part], span, h) for part, h in parts], 1)
    k, rows, cols = basis.shape
    groups = -(-cols // span)
    if moment is None:
        if groups * span > cols:
            pad = (0, groups * span - cols)
            target, basis = torch.nn.functional.pad(target, pad), torch.nn.functional.pad(basis, pad)
        basis, target = basis.reshape(k, rows * groups, span), target.reshape(rows * groups, span)
        gram = torch.stack([(basis[i] * basis).sum(-1) for i in range(k)], -1).permute(1, 2, 0)
        return solve(gram, (basis * target).sum(-1).mT).view(rows, groups, k).permute(2, 0, 1)
    gram = torch.empty(rows, groups, k, groups, k)
    right = torch.empty(rows, groups, k)
    for group in range(groups):
        columns = slice(group * span, min((group + 1) * span, cols))
        for i in range(k):
            reach = basis[i][:, columns] @ moment[columns]
            gram[:, group, i] = sum_groups(basis * reach, span).permute(1, 2, 0)
            right[:, group, i] = (reach * target).sum(-1)
    solution = solve(gram.view(rows, groups * k, groups * k), right.view(rows, groups * k))
    return solution.view(rows, groups, k).permute(2, 0, 1)


def sum_groups(x: Tensor, span: int) -> Tensor:
    """Sums over groups of columns: `[..., cols]` to `[..., groups]`."""
    cols = x.shape[-1]
    groups = -(-cols // span)
    return torch.nn.functional.pad(x, (0, groups * span - cols)).unflatten(-1, (groups, span)).sum(-1)


def solve(gram: Tensor, right: Tensor) -> Tensor:
    """Solve `[n, k, k]` symmetric systems for `[n, k]`; a system of zeros gives zeros."""
    if gram.shape[-1] == 1:
        return torch.where(gram[..., 0] > 0, right / gram[..., 0], 0.0)
    gram = gram.double()
    ridge = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] * RIDGE
    ridge = torch.where(ridge > 0, ridge, 1.0)
    eye = torch.eye(gram.shape[-1], dtype=torch.float64)
    return torch.linalg.solve(gram + ridge * eye, right.double()).to(right.dtype)


def compute_row_cost(error: Tensor, moment: Tensor | None) -> Tensor:
    """e H eᵀ of every row, `[rows]`; a moment of three dimensions has one for each group of rows."""
    if moment is not None and moment.ndim == 3:
        parts = zip(split_rows(len(error), len(moment)), moment, strict=True)
        return torch.cat([compute_row_cost(error[part], h) for part, h in parts])
    return error.square().sum(1) if moment is None else ((error @ moment) * error).sum(1)
