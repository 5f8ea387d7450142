"""State of coding one matrix: masks, parameters and codes so far, block by block and span by span.

`ColumnCoder` is what an assignment calls. It knows nothing of progress and pictures: those who want them (see `pipeline`) stand
between the assignment and it.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Any, Generic

import torch
from torch import Tensor

from workbench.guided_moments import GuidedMoments
from workbench.jobs import run_steps
from workbench.kernels.packing.packed import Packed
from workbench.quantizers.contract import Assignment, BlockSplit, Coder, Layout, Quantize, SharedT, SpanT, Split, Sweeps
from workbench.quantizers.distance import compute_column_energies, compute_energy_ratio


class SplitRun:
    """The masks of a split on one matrix, made at once, or block by block as coding reaches the blocks."""

    def __init__(self, split: Split, w: Tensor, moment: Tensor | None) -> None:
        self.split = split
        if not isinstance(split, BlockSplit):
            self.masks = split.masks(w, moment)
            return
        self.columns = split.columns(moment, w.shape[1])
        self.masks = [torch.zeros_like(w, dtype=torch.bool) for _ in range(split.parts)]
        self.waiting = set(range(0, w.shape[1], split.block))

    def reach(self, w: Tensor, start: int, stop: int) -> None:
        """Make the masks of all blocks that columns `start:stop` of the current matrix lie in, once."""
        if not isinstance(self.split, BlockSplit):
            return
        size = self.split.block
        for first in range(start - start % size, stop, size):
            if first in self.waiting:
                self.waiting.remove(first)
                for full_mask, block_mask in zip(self.masks, self.split.masks_from(w, self.columns, first), strict=True):
                    full_mask[:, first : first + size] = block_mask


class CoderRun(Generic[SharedT, SpanT]):
    """One coder at work on one matrix: its parameters span by span and its codes, filled as columns are coded.

    `guided` are moments of groups of rows, of which `moment` is then the mean.
    """

    def __init__(
        self,
        number: int,
        coder: Coder[SharedT, SpanT],
        mask: Tensor,
        shared: SharedT,
        moment: Tensor | None,
        guided: GuidedMoments | None = None,
    ) -> None:
        self.number, self.coder, self.mask, self.shared, self.moment = number, coder, mask, shared, moment
        self.guided = guided
        self.cols = mask.shape[1]
        self.span, self.step = coder.span(self.cols), coder.step(self.cols)
        self.spans = range(-(-self.cols // self.span))
        self.params: dict[int, SpanT] = {}  # by the number of the span, as far as they are fitted
        self.sweeps: list[Sweeps] = []
        self.codes = torch.empty(0)  # of the whole matrix in column order, filled as columns are coded

    def fit(self, w: Tensor, index: int) -> SpanT:
        """Fit span `index` on the matrix as it stands now, once."""
        return run_steps(self.fit_steps(w, index))

    def fit_steps(self, w: Tensor, index: int) -> Generator[float, None, SpanT]:
        """The same, telling the share of this fit that is done."""
        if index not in self.params:
            columns = slice(index * self.span, min((index + 1) * self.span, self.cols))
            moment = None if self.moment is None else self.moment[columns, columns]
            values, mask = w[:, columns], self.mask[:, columns]
            if self.guided is None or moment is None:
                fit = yield from self.coder.fit_steps(values, mask, self.shared, moment)
            else:
                fit = yield from self.coder.fit_weighted_steps(values, mask, self.shared, moment, self.guided.rows)
            self.params[index] = fit.params
            self.sweeps.append(Sweeps(self.number, columns.start, columns.stop, fit.sweeps, fit.path))
        return self.params[index]

    def fit_all(self, w: Tensor, start: int, stop: int) -> None:
        """Fit every span that columns `start:stop` lie in and that is not fitted yet."""
        for index in range(start // self.span, -(-stop // self.span)):
            self.fit(w, index)

    def take_new_sweeps(self) -> list[Sweeps]:
        """What has been fitted since the last time this was asked."""
        news, self.sweeps = self.sweeps, []
        return news

    def code(self, w: Tensor, start: int, stop: int, metric: Tensor | None = None) -> Tensor:
        """Code columns `start:stop` and return their values."""
        values, first = w.new_empty(len(w), stop - start), start
        while start < stop:
            index = start // self.span
            end = min(stop, (index + 1) * self.span)
            params, within = self.fit(w, index), slice(start - index * self.span, end - index * self.span)
            columns = slice(start - first, end - first)
            if metric is None:
                codes = self.coder.encode(w[:, start:end], params, within)
            else:
                codes = self.coder.encode_under(metric[..., columns, columns], w[:, start:end], params, within)
            values[:, columns] = self.coder.decode(codes, params, within)
            self.enter(codes, start)
            start = end
        return values

    def enter(self, codes: Tensor, start: int) -> None:
        """Enter the codes of columns from `start` on: pieces that are stored one by one scatter the memory."""
        if not self.codes.numel():
            self.codes = codes.new_empty(len(codes), -(-self.cols // self.step), *codes.shape[2:])
        first = start // self.step
        self.codes[:, first : first + codes.shape[1]] = codes

    def values(self) -> Tensor:
        """What the codes stand for at the mask's true positions, zero elsewhere."""
        per_span = -(-self.span // self.step)
        pieces = []
        for index in self.spans:
            width = min(self.span, self.cols - index * self.span)
            span_codes = self.codes[:, index * per_span : (index + 1) * per_span]
            pieces.append(self.coder.decode(span_codes, self.params[index], slice(0, width)))
        return torch.cat(pieces, 1) * self.mask

    def fitted(self) -> list[SpanT]:
        """The parameters of all spans, in the order of the columns."""
        return [self.params[index] for index in self.spans]

    def refit(self, target: Tensor) -> None:
        """Let the coder improve its parameters for the codes it ended with."""
        moment = self.moment if self.guided is None else self.guided.groups
        params = self.coder.refit(target, self.codes, self.fitted(), self.mask, moment)
        self.params = dict(enumerate(params))

    def pack(self, masked: bool) -> Packed:
        """The stored form; codes outside the mask are not stored when the split has several masks."""
        mask, (rows, cols) = self.mask if masked else None, self.mask.shape
        return self.coder.pack(self.codes, self.fitted(), mask, (rows, cols))


class ColumnCoder:
    """The coders of one matrix as the function that an assignment calls: columns in, the values of their codes out."""

    def __init__(self, division: SplitRun, runs: Sequence[CoderRun[Any, Any]], assignment: Assignment) -> None:
        self.division, self.runs, self.assignment = division, runs, assignment
        self.cols, self.widest = runs[0].cols, max(run.span for run in runs)
        self.layout = Layout(self.cols, max(run.step for run in runs), min(run.span for run in runs))
        self.together = dict(assignment.fitted_together(self.layout))

    def fit_first(self, w: Tensor) -> Generator[float, None, None]:
        """Fit what has to be fitted on the original matrix before any column is coded, telling the share that is done."""
        if not (self.assignment.static or all(run.step == self.cols for run in self.runs)):
            return
        self.division.reach(w, 0, self.cols)
        for run in self.runs:
            for index in run.spans:
                yield from run.fit_steps(w, index)
                yield 1.0 if run.step == self.cols else 0.0  # columns are coded one after the other only later

    def run(self, w: Tensor, moment: Tensor | None, quantize: Quantize | None = None) -> Iterator[Tensor]:
        """Code every column of a copy of `w`, which comes out after each block; `quantize` stands in for this coder."""
        return self.assignment.run(w.clone(), moment, self.layout, quantize or self)

    def __call__(self, current: Tensor, start: int, stop: int, metric: Tensor | None = None) -> Tensor:
        """Code columns `start:stop` of the matrix as it stands and return their values, each weight from its own coder."""
        last = self.together.get(start, stop)
        self.division.reach(current, start - start % self.widest, min(last - last % -self.widest, self.cols))
        if last > stop:
            for run in self.runs:
                run.fit_all(current, start, last)
        values, *others = (run.code(current, start, stop, metric) for run in self.runs)
        for run, other_values in zip(self.runs[1:], others, strict=True):
            values = torch.where(run.mask[:, start:stop], other_values, values)
        return values

    def take_new_sweeps(self) -> list[Sweeps]:
        """What has been fitted since the last time this was asked."""
        return [sweeps for run in self.runs for sweeps in run.take_new_sweeps()]


class BlockErrors:
    """How far the columns coded so far are from those of `w [rows, cols]`; each column is compared once."""

    def __init__(self, w: Tensor) -> None:
        self.w, self.coded = w, 0
        self.waiting: list[slice] = []  # columns coded since the last look; a column that was coded stays as it is
        self.errors, self.sizes = torch.zeros(2, w.shape[1], dtype=torch.float64)

    def add(self, start: int, stop: int) -> None:
        """Columns `start:stop` are coded now."""
        self.coded += stop - start
        if self.waiting and self.waiting[-1].stop == start:  # neighbours are compared together
            start = self.waiting.pop().start
        self.waiting.append(slice(start, stop))

    def relative_error(self, current: Tensor) -> float:
        """Squared error of the coded columns of `current` over their energy in the original."""
        while self.waiting:
            columns = self.waiting.pop()
            self.errors[columns] = compute_column_energies(self.w, columns, current)
            self.sizes[columns] = compute_column_energies(self.w, columns)
        return compute_energy_ratio(self.errors.sum().item(), self.sizes.sum().item())
