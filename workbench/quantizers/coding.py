"""A split and a coder at work on one matrix: what they have found so far, block by block and span by span."""

from collections.abc import Generator
from typing import cast

import torch
from torch import Tensor

from workbench.kernels.packing.packed import Packed
from workbench.quantizers.contract import BlockSplit, Coder, Params, Split, Sweeps, finish


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


class CoderRun:
    """One coder at work on one matrix: its parameters span by span and its codes, filled as columns are coded."""

    def __init__(self, number: int, coder: Coder, mask: Tensor, shared: Params, moment: Tensor | None) -> None:
        self.number, self.coder, self.mask, self.shared, self.moment = number, coder, mask, shared, moment
        self.cols = mask.shape[1]
        self.span, self.step = coder.span(self.cols), coder.step(self.cols)
        self.params: list[Params | None] = [None] * -(-self.cols // self.span)
        self.sweeps: list[Sweeps] = []
        self.codes = torch.empty(0)  # of the whole matrix in column order, filled as columns are coded

    def fit(self, w: Tensor, index: int) -> Params:
        """Fit span `index` on the matrix as it stands now, once."""
        return finish(self.fit_steps(w, index))

    def fit_steps(self, w: Tensor, index: int) -> Generator[float, None, Params]:
        """The same, telling the share of this fit that is done."""
        if self.params[index] is None:
            columns = slice(index * self.span, min((index + 1) * self.span, self.cols))
            moment = None if self.moment is None else self.moment[columns, columns]
            fit = yield from self.coder.fit_steps(w[:, columns], self.mask[:, columns], self.shared, moment)
            self.params[index] = fit.params
            self.sweeps.append(Sweeps(self.number, columns.start, columns.stop, fit.sweeps, fit.path))
        return cast(Params, self.params[index])

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
                codes = self.coder.encode_under(metric[columns, columns], w[:, start:end], params, within)
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
        for index, params in enumerate(cast(list[Params], self.params)):
            width = min(self.span, self.cols - index * self.span)
            span_codes = self.codes[:, index * per_span : (index + 1) * per_span]
            pieces.append(self.coder.decode(span_codes, params, slice(0, width)))
        return torch.cat(pieces, 1) * self.mask

    def refit(self, target: Tensor) -> None:
        """Let the coder improve its parameters for the codes it ended with."""
        params = cast(list[Params], self.params)
        self.params = list(self.coder.refit(target, self.codes, params, self.mask, self.moment))

    def pack(self, masked: bool) -> Packed:
        """The stored form; codes outside the mask are not stored when the split has several masks."""
        mask, (rows, cols) = self.mask if masked else None, self.mask.shape
        return self.coder.pack(self.codes, cast(list[Params], self.params), mask, (rows, cols))
