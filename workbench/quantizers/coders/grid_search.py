"""The grid that loses least on a group of weights: a search over scale and zero together, then least squares.

    value = scale · (code − zero),  code 0 … steps

A range that is only made smaller (GPTQ's grid search) misses grids whose last code no weight needs: {−a, 0, a} at two bits is
a grid of scale a, wider than the weights. So the search takes the zeros around that of the whole range and, for each, shares of
the scale that reaches all weights; a scale read off the distance between neighbouring weights, which finds a grid that they came
from; and the scale and zero that are best for the codes so far, as long as that helps.
"""

import torch
from torch import Tensor

from workbench.quantizers.coders.scales import RIDGE
from workbench.quantizers.contract import Params
from workbench.quantizers.stored import fp16

SHARES = torch.arange(100, 18, -8) / 100  # of the scale that reaches all weights, tried with each zero
FINER = (0.04, 0.02, 0.01)  # then smaller and larger by these shares
NEIGHBOURS = (0, -1, 1)  # of the whole range's zero
MULTIPLES = (1, 2, 3)  # neighbouring weights may lie so many steps of their grid apart
SWEEPS = 4  # of least squares
ALL_ZEROS = 15  # steps up to which least squares tries every zero
TOGETHER = 1 << 19  # weights, counted once for each grid, that are tried at the same time


class GridSearch:
    """The best grid so far of each row of `w [rows, cols]`; errors are squared and weighed by `weight`, 1 where it is None.

    `middle` is the only zero that a symmetric grid has; its scale may be negative, which turns the longer side around.
    """

    def __init__(self, w: Tensor, weight: Tensor | None, steps: int, middle: int | None = None) -> None:
        self.w, self.weight, self.steps, self.middle = w, weight, steps, middle
        self.high, self.low = w.amax(1).clamp(min=0), w.amin(1).clamp(max=0)
        self.error = w.new_full((len(w),), torch.inf)
        self.scale, self.zero = torch.zeros_like(self.high), torch.full_like(self.high, float(middle or 0))

    def run(self) -> Params:
        """Try everything; `scale` and `zero`, `[rows]`."""
        self.try_shares()
        self.try_spacing()
        for _ in range(SWEEPS):
            if not self.try_least_squares():
                break
        return {"scale": self.scale, "zero": self.zero}

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
            return [(self.reach(self.zero, self.zero < side), self.zero) for side in (0, self.steps + 1)]
        zero = divide(-self.low * self.steps, self.high - self.low).round()
        zeros = [(zero + other).clamp(0, self.steps) for other in NEIGHBOURS]
        return [(self.reach(own, own < 0), own) for own in zeros]

    def reach(self, zero: Tensor, turned: Tensor) -> Tensor:
        """The scale of least size at which no weight lies outside the grid, negative where it is `turned`."""
        above, below = torch.where(turned, -self.low, self.high), torch.where(turned, self.high, -self.low)
        size = torch.maximum(divide(above, self.steps - zero), divide(below, zero))
        return torch.where(turned, -size, size)

    def try_spacing(self) -> None:
        """Scales of which the least distance between two weights, or of one from 0, is a small multiple."""
        extent = self.high - self.low if self.middle is None else torch.maximum(self.high, -self.low)
        most = self.steps if self.middle is None else self.middle
        values = torch.nn.functional.pad(self.w, (0, 1)).sort(1).values
        gaps = values.diff(dim=1)
        apart = torch.where(gaps >= 0.5 * extent[:, None] / most, gaps, torch.inf).amin(1)
        for multiple in MULTIPLES:
            scale = fp16(extent / (extent * multiple / apart).round().clamp(1, most))
            if self.middle is None:
                zero = divide(-self.low, scale).round().clamp(0, self.steps)
                self.offer(scale[None], zero[None])
            else:
                self.offer(torch.stack([scale, -scale]), self.zero.expand(2, -1))

    def try_least_squares(self) -> bool:
        """The best scale, with its best zero, for the codes of the grid so far; whether any row has gained."""
        codes = self.codes(self.scale, self.zero)
        weight = torch.ones_like(self.w[:1]) if self.weight is None else self.weight
        heavy = codes * weight
        square, linear, count = (heavy * codes).sum(1), heavy.sum(1), (weight + 0 * codes).sum(1)
        cross, total = (heavy * self.w).sum(1), (self.w * weight).sum(1)
        zero = self.zero[None] + self.nearby_zeros()
        top, bottom = cross - zero * total, square - 2 * zero * linear + zero.square() * count
        scale = fp16(divide(top, bottom.where(bottom > RIDGE * square, 0.0)))
        if self.middle is None:
            scale = scale.clamp(min=0)
        best = (scale * (scale * bottom - 2 * top)).nan_to_num(torch.inf).argmin(0, keepdim=True)
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

    def offer(self, scale: Tensor, zero: Tensor) -> bool:
        """Let each row take the best of the grids `[k, rows]` where that is better than what it has; whether any has gained."""
        gained, scale = False, fp16(scale)
        size = max(1, TOGETHER // self.w.numel())
        for scales, zeros in zip(scale.split(size), zero.split(size), strict=True):
            lost = self.codes(scales, zeros).sub_(zeros[..., None]).mul_(scales[..., None]).sub_(self.w).square_()
            error = (lost if self.weight is None else lost.mul_(self.weight)).sum(-1).nan_to_num_(torch.inf)
            error, first = error.min(0, keepdim=True)
            better = error[0] < self.error
            gained = gained or bool(better.any())
            self.error = torch.where(better, error[0], self.error)
            self.scale = torch.where(better, scales.gather(0, first)[0], self.scale)
            self.zero = torch.where(better, zeros.gather(0, first)[0], self.zero)
        return gained


def divide(top: Tensor, bottom: Tensor) -> Tensor:
    """top / bottom, 0 where `bottom` is 0."""
    return torch.where(bottom == 0, 0.0, top / torch.where(bottom == 0, 1.0, bottom))
