"""Error feedback: code some columns, then update the others to compensate the output error. One routine for all orders.

Coding columns b with error D = W_b − Q_b leaves the least tr(E H Eᵀ) when the columns r after them move by
−D U_bb⁻¹ U_br, where Uᵀ U = H⁻¹ (upper). For one column this is GPTQ (arXiv 2210.17323); for a block, the released codes of
BiLLM (arXiv 2402.04291) and its family divide by the diagonal of U_bb only (`divide_by_diagonal`), which is not the optimum. What
is left then is ‖D U_bb⁻¹‖², so codes of several columns are chosen under the metric (U_bbᵀ U_bb)⁻¹ (as in GPTVQ, arXiv
2402.15319). With a moment for each group of rows, each group has a factor of its own.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from workbench.guided_moments import split_rows
from workbench.quantizers.contract import Layout, Quantize
from workbench.quantizers.curvature import compute_inverse_factor

Tiles = Sequence[tuple[int, int]]
Divide = Callable[[Tensor, Tensor], Tensor]  # U_bb [k, k] and D [rows, k] to what is multiplied by U_br
FEEDBACK_COLUMNS = 128  # columns whose error moves on to later batches together


def list_tile_batches(layout: Layout, block: int) -> list[list[tuple[int, int]]]:
    """Tiles of `block` columns (in whole steps, at least one), in batches that the error leaves together."""
    size = max(block // layout.step, 1) * layout.step
    outer = layout.batches(max(size, FEEDBACK_COLUMNS))
    return [[(tile, min(tile + size, stop)) for tile in range(start, stop, size)] for start, stop in outer]


def compute_energy(moment: Tensor) -> Tensor:
    """The energy of each input `[cols]`: the mean over groups of rows where each has its own moment."""
    return moment.diagonal(dim1=-2, dim2=-1).reshape(-1, moment.shape[-1]).mean(0)


def _divide_by_factor(u: Tensor, error: Tensor) -> Tensor:
    """D U_bb⁻¹: the columns that follow then repair as much as they can."""
    if len(u) == 1:
        return error * u.reciprocal()  # as LAPACK does it
    return torch.linalg.solve_triangular(u, error, upper=True, left=False)


def divide_by_diagonal(u: Tensor, error: Tensor) -> Tensor:
    """D over the diagonal of U_bb: the same for one column, less for a block."""
    return error / u.diagonal()


def feed_back(
    w: Tensor, moment: Tensor, batches: Sequence[Tiles], damping: float, quantize: Quantize, divide: Divide = _divide_by_factor
) -> Iterator[Tensor]:
    """Code `w [rows, cols]` tile by tile, in place, in the order given; yield it after each batch.

    `moment` is `[cols, cols]`, or `[groups, cols, cols]` with one for each group of rows (see `split_rows`). Tiles are
    `(start, stop)` columns coded at once. Inside a batch the error moves on at once, to later batches in one product at the
    batch's end: the same result, fewer passes over the matrix.
    """
    order = torch.cat([torch.arange(start, stop) for tiles in batches for start, stop in tiles])
    in_place = bool((order == torch.arange(len(order))).all())
    moments = moment[None] if moment.ndim == 2 else moment
    factors = [compute_inverse_factor(h if in_place else h[order][:, order], damping) for h in moments]
    parts = split_rows(len(w), len(factors))
    x = w if in_place else w[:, order]
    first = 0
    for tiles in batches:
        last = first + sum(stop - start for start, stop in tiles)
        us = [exact[first:last].to(w.dtype) for exact in factors]  # no second matrix beside a wide one
        waiting = _copy_by_columns(x[:, first:last]) if len(tiles) == last - first else x[:, first:last]
        errors = torch.empty(len(w), last - first, dtype=w.dtype)
        done = 0
        for start, stop in tiles:
            tile, later = slice(done, done + stop - start), slice(done + stop - start, last - first)
            columns = slice(first + tile.start, first + tile.stop)
            w[:, start:stop] = waiting[:, tile]
            costs = [_compute_remaining_cost(exact[columns, columns]) for exact in factors]
            values = quantize(w, start, stop, costs[0] if moment.ndim == 2 else torch.stack(costs))
            for rows, u in zip(parts, us, strict=True):
                error = divide(u[tile, columns], waiting[rows, tile] - values[rows])
                errors[rows, tile] = error
                waiting[rows, later].addmm_(error, u[tile, first:last][:, later], alpha=-1)
            w[:, start:stop] = values
            done = tile.stop
        for rows, u in zip(parts, us, strict=True):
            x[rows, last:].addmm_(errors[rows], u[:, last:], alpha=-1)
        first = last
        yield w


def _copy_by_columns(x: Tensor) -> Tensor:
    """A copy that holds each column in one piece, for work on one column at a time."""
    return x.mT.contiguous().mT


def _compute_remaining_cost(u: Tensor) -> Tensor:
    """(UᵀU)⁻¹ `[k, k]` over its mean diagonal: what errors in these columns cost once the columns after them make up for them."""
    if len(u) == 1:
        return torch.ones_like(u)
    metric = torch.cholesky_inverse(u, upper=True)
    return metric / metric.diagonal().mean()
