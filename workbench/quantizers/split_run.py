"""A split at work on one matrix."""

import torch
from torch import Tensor

from workbench.quantizers.contract import BlockSplit, Split


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
                for whole, own in zip(self.masks, self.split.masks_from(w, self.columns, first), strict=True):
                    whole[:, first : first + size] = own
