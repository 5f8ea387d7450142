"""The grid with the lowest error on a group of weights: a joint search over scale and zero, then least squares.

    value = scale · (code − zero),  code 0 … steps

A range that is only made smaller (GPTQ's grid search) misses grids whose last code no weight needs: {−a, 0, a} at two bits is
a grid of scale a, wider than the weights. So the search takes the zeros around that of the whole range and, for each, shares of
the scale that reaches all weights; a scale read off the distance between neighbouring weights, which finds a grid that they came
from; and the scale and zero that are best for the codes so far, as long as that helps.
"""

import numpy as np
import torch
from torch import Tensor

from workbench.quantizers.coders.fitting.least_squares import RIDGE
from workbench.quantizers.storage_rounding import round_to_fp16

SHARES = torch.arange(100, 18, -8) / 100  # of the scale that reaches all weights, tried with each zero
FINER = (0.04, 0.02, 0.01)  # then smaller and larger by these shares
NEIGHBOURS = (0, -1, 1)  # of the whole range's zero
MULTIPLES = (1, 2, 3)  # neighbouring weights may lie so many steps of their grid apart
LEAST_SQUARES_SWEEPS = 4  # of least squares
RANGE_STARTS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # shares of the range that lines start from, where the zero is any number
FIRST_CODES = 3  # the smallest weight of a grid whose ends no weight reaches may have up to this code
ALL_ZEROS = 15  # steps up to which least squares tries every zero
TRIALS_AT_ONCE = 1 << 19  # weights, counted once for each grid, that are tried at the same time


class GridSearch:
    """The best grid so far of each row of `w [rows, cols]`; errors are squared and weighed by `weight`, 1 where it is None.

    `middle` is the only zero that a symmetric grid has; its scale may be negative, which turns the longer side around.
    """

    def __init__(self, w: Tensor, weight: Tensor | None, steps: int, middle: int | None = None) -> None:
        self.w, self.weight, self.steps, self.middle = w.contiguous(), weight, steps, middle
        self.high, self.low = w.amax(1).clamp(min=0), w.amin(1).clamp(max=0)
        self.error = w.new_full((len(w),), torch.inf)
        self.scale, self.zero = torch.zeros_like(self.high), torch.full_like(self.high, float(middle or 0))

    def run(self) -> tuple[Tensor, Tensor]:
        """Try everything; `scale` and `zero`, `[rows]`."""
        self.try_shares()
        self.try_spacing()
        for _ in range(LEAST_SQUARES_SWEEPS):
            if not self.try_least_squares():
                break
        return self.scale, self.zero

    def try_shares(self) -> None:
        """Shares of the scale that reaches all weights with each zero, coarse and then finer around the best."""
        starts = self.whole_ranges()
        for scale, zero in starts:
            self.offer(SHARES[:, None] * scale, zero.expand(len(SHARES), -1))
        reach = self.reach(self.zero, self.scale < 0)
        for step in FINER:
            nearby = torch.stack([self.scale - step * reach, self.scale + step * reach])
            self.offer(nearby, self.zero.expand(2, -1))

    def whole_ranges(self) -> list[tuple[Tensor, Tensor]]:
        """Grids that reach all weights, `(scale, zero)` of `[rows]`."""
        if self.middle is not None:
            sides = (torch.full_like(self.zero, turned, dtype=torch.bool) for turned in (False, True))
            return [(self.reach(self.zero, side), self.zero) for side in sides]
        zero = divide(-self.low * self.steps, self.high - self.low).round()
        zeros = [(zero + other).clamp(0, self.steps) for other in NEIGHBOURS]
        return [(self.reach(one_zero, torch.zeros_like(one_zero, dtype=torch.bool)), one_zero) for one_zero in zeros]

    def reach(self, zero: Tensor, turned: Tensor) -> Tensor:
        """The scale of least size at which no weight lies outside the grid, negative where it is `turned`."""
        above, below = torch.where(turned, -self.low, self.high), torch.where(turned, self.high, -self.low)
        size = torch.maximum(divide(above, self.steps - zero), divide(below, zero))
        return torch.where(turned, -size, size)

    def try_spacing(self) -> None:
        """Scales of which the least distance between two weights, or of one from 0, is a small multiple."""
        extent = self.high - self.low if self.middle is None else torch.maximum(self.high, -self.low)
        most = self.steps if self.middle is None else self.middle
        for scale in self.spacings(torch.nn.functional.pad(self.w, (0, 1)), extent, most):
            if self.middle is None:
                zero = divide(-self.low, scale).round().clamp(0, self.steps)
                self.offer(scale[None], zero[None])
            else:
                self.offer(torch.stack([scale, -scale]), self.zero.expand(2, -1))

    def spacings(self, values: Tensor, extent: Tensor, most: int) -> list[Tensor]:
        """Scales that divide `extent` into at most so many steps, and the least distance between `values` into few."""
        gaps = torch.from_numpy(np.sort(values.numpy(), axis=1)).diff(dim=1)  # ten times as fast as torch's
        apart = torch.where(gaps >= 0.5 * extent[:, None] / most, gaps, torch.inf).amin(1)
        return [round_to_fp16(extent / (extent * multiple / apart).round().clamp(1, most)) for multiple in MULTIPLES]

    def try_least_squares(self) -> bool:
        """The best scale, with its best zero, for the codes of the grid so far; whether any row has gained."""
        count, linear, square, cross, total = self.sums(self.scale, self.zero)
        zero = self.zero[None] + self.nearby_zeros()
        top, bottom = cross - zero * total, square - 2 * zero * linear + zero.square() * count
        scale = round_to_fp16(divide(top, bottom.where(bottom > RIDGE * square, 0.0)))
        if self.middle is None:
            scale = scale.clamp(min=0)
        best = (scale * (scale * bottom - 2 * top)).nan_to_num(torch.inf).min(0, keepdim=True).indices
        return self.offer(scale.gather(0, best), zero.gather(0, best))

    def nearby_zeros(self) -> Tensor:
        """What to add to the zero of each row, `[k, rows]`, to stay inside the grid: all, or for fine grids the neighbours."""
        if self.middle is not None:
            return torch.zeros_like(self.zero[None])
        if self.steps <= ALL_ZEROS:
            return torch.arange(self.steps + 1.0)[:, None] - self.zero
        return (self.zero + torch.arange(-2.0, 3.0)[:, None]).clamp(0, self.steps) - self.zero

    def codes(self, scale: Tensor, zero: Tensor) -> Tensor:
        """The nearest codes on grids `[..., rows]`, as float32 `[..., rows, cols]`."""
        step = torch.where(scale == 0, 1.0, scale)[..., None]
        return (self.w / step).round_().add_(zero[..., None]).clamp_(0, self.steps)

    def sums(self, scale: Tensor, zero: Tensor) -> tuple[Tensor, ...]:
        """Weighted sums over each row for the codes of a grid: of 1, code, code², w · code, and w."""
        codes = self.codes(scale, zero)
        weight = torch.ones_like(self.w) if self.weight is None else self.weight.expand_as(self.w)
        heavy = codes * weight
        products = (weight, heavy, heavy * codes, heavy * self.w, self.w * weight)
        return tuple(product.sum(1) for product in products)

    def offer(self, scale: Tensor, zero: Tensor) -> bool:
        """Let each row take the best of the grids `[k, rows]` where that is better than what it has; whether any has gained."""
        gained, scale, zero = False, round_to_fp16(scale), round_to_fp16(zero)
        size = max(1, TRIALS_AT_ONCE // self.w.numel())
        for scales, zeros in zip(scale.split(size), zero.split(size), strict=True):
            squared_errors = self.codes(scales, zeros).sub_(zeros[..., None]).mul_(scales[..., None]).sub_(self.w).square_()
            error = (squared_errors if self.weight is None else squared_errors.mul_(self.weight)).sum(-1).nan_to_num_(torch.inf)
            error, first = error.min(0, keepdim=True)
            better = error[0] < self.error
            gained = gained or bool(better.any())
            self.error = torch.where(better, error[0], self.error)
            self.scale = torch.where(better, scales.gather(0, first)[0], self.scale)
            self.zero = torch.where(better, zeros.gather(0, first)[0], self.zero)
        return gained


class RealGridSearch(GridSearch):
    """The same where the zero is any number, as in HQQ (https://mobiusml.github.io/hqq_blog): 0 need not be on the grid.

    Then the line through the weights over their codes is the best grid for these; which codes are best depends on the start.
    """

    def __init__(self, w: Tensor, weight: Tensor | None, steps: int) -> None:
        super().__init__(w, weight, steps)
        self.high, self.low = w.amax(1), w.amin(1)

    def try_shares(self) -> None:
        """Lines from shares of the range, about its middle; and the range with 0 in it, for weights that are all the same."""
        high, low = self.high.clamp(min=0), self.low.clamp(max=0)
        wide = round_to_fp16((high - low) / self.steps)
        self.offer(wide[None], divide(-low, wide)[None])
        for share in RANGE_STARTS:
            scale = round_to_fp16(share * (self.high - self.low) / self.steps)
            zero = round_to_fp16(self.steps / 2 - divide((self.high + self.low) / 2, scale))
            self.offer(scale[None], zero[None])
            for _ in range(LEAST_SQUARES_SWEEPS):
                scale, zero = self.line(scale, zero)
                self.offer(scale[None], zero[None])

    def try_spacing(self) -> None:
        """Scales of which the least distance between two weights is a small multiple; the smallest weight at the first codes."""
        extent = self.high - self.low
        for scale in self.spacings(self.w, extent, self.steps):
            zero = -divide(self.low, scale) + torch.arange(1.0 + FIRST_CODES)[:, None]
            self.offer(scale.expand_as(zero), zero)

    def try_least_squares(self) -> bool:
        """The line for the codes of the grid so far."""
        scale, zero = self.line(self.scale, self.zero)
        return self.offer(scale[None], zero[None])

    def line(self, scale: Tensor, zero: Tensor) -> tuple[Tensor, Tensor]:
        """The scale and zero of least squares for the codes of a grid."""
        count, linear, square, cross, total = self.sums(scale, zero)
        spread = count * square - linear.square()
        better = round_to_fp16(divide(count * cross - linear * total, spread.where(spread > RIDGE * count * square, 0.0)))
        return better, round_to_fp16(divide(linear - divide(total, better), count))

    def codes(self, scale: Tensor, zero: Tensor) -> Tensor:
        """The nearest codes on grids `[..., rows]`, as float32 `[..., rows, cols]`."""
        step = torch.where(scale == 0, 1.0, scale)[..., None]
        return (self.w / step).add_(zero[..., None]).round_().clamp_(0, self.steps)


def divide(top: Tensor, bottom: Tensor) -> Tensor:
    """top / bottom, 0 where `bottom` is 0."""
    return torch.where(bottom == 0, 0.0, top / torch.where(bottom == 0, 1.0, bottom))
