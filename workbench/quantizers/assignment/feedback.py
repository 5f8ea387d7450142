"""Error feedback: code some columns, then update the others to compensate the output error. One routine for all orders.

Coding columns b with error D = W_b − Q_b leaves the least tr(E H Eᵀ) when the columns r after them move by
−D U_bb⁻¹ U_br, where Uᵀ U = H⁻¹ (upper). For one column this is GPTQ (arXiv 2210.17323); for a block, the released codes of
BiLLM (arXiv 2402.04291) and its family divide by the diagonal of U_bb only (`divide_by_diagonal`), which is not the optimum. What
is left then is ‖D U_bb⁻¹‖², so codes of several columns are chosen under the metric (U_bbᵀ U_bb)⁻¹ (as in GPTVQ, arXiv
2402.15319).
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

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

    Tiles are `(start, stop)` columns coded at once. Inside a batch the error moves on at once, to later batches in one
    product at the batch's end: the same result, fewer passes over the matrix.
    """
    order = torch.cat([torch.arange(start, stop) for tiles in batches for start, stop in tiles])
    in_place = bool((order == torch.arange(len(order))).all())
    exact = compute_inverse_factor(moment if in_place else moment[order][:, order], damping)
    x = w if in_place else w[:, order]
    first = 0
    for tiles in batches:
        last = first + sum(stop - start for start, stop in tiles)
        u = exact[first:last].to(w.dtype)  # no second matrix beside a wide one
        waiting = _copy_by_columns(x[:, first:last]) if len(tiles) == last - first else x[:, first:last]
        errors = torch.empty(len(w), last - first, dtype=w.dtype)
        done = 0
        for start, stop in tiles:
            tile, later = slice(done, done + stop - start), slice(done + stop - start, last - first)
            columns = slice(first + tile.start, first + tile.stop)
            w[:, start:stop] = waiting[:, tile]
            values = quantize(w, start, stop, _compute_remaining_cost(exact[columns, columns]))
            error = divide(u[tile, columns], waiting[:, tile] - values)
            w[:, start:stop] = values
            errors[:, tile] = error
            waiting[:, later].addmm_(error, u[tile, first:last][:, later], alpha=-1)
            done = tile.stop
        x[:, last:].addmm_(errors, u[:, last:], alpha=-1)
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
