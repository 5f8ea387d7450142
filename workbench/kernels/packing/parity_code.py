"""Signs that satisfy parity checks: some of them are determined by the others and are not stored.

Down each column of a sign matrix, checks demand an even number of −1 among the signs that they cover, and the last of these is
the one that need not be stored. Checks overlap: every sign has a mask, whose bit t says that the t-th check still open covers it.
A search has to remember the open checks only, so its trellis has 2^MEMORY states however long the column is (convolutional
syndrome coding: Filler, Judas and Fridrich, IEEE TIFS 2011, made there to hide messages).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

MEMORY = 6  # open checks that a mask can name
CLOSING = 45  # mask of the last sign under a check; odd, as it has to cover that check itself
OPEN = (35, 61, 49, 47)  # masks of the signs before it, in turn; the best of 150 draws on Gaussian weights


@dataclass(frozen=True)
class ParityCode:
    """`checks` parity checks in every `length` signs of a column, evenly spread: 1 − checks/length bits a sign."""

    length: int
    checks: int

    def closes(self, row: int) -> bool:
        """Whether the sign in this row is the last one under a check, and so not stored."""
        return (row + 1) * self.checks // self.length != row * self.checks // self.length

    def stored(self, rows: int) -> Tensor:
        """Which rows are stored, bool `[rows]`."""
        return torch.tensor([not self.closes(row) for row in range(rows)])

    def stored_count(self, rows: int) -> int:
        """How many of so many rows are stored."""
        return rows - rows * self.checks // self.length

    def masks(self, rows: int) -> list[int]:
        """Each row's mask of open checks; bit 0 is the next check to close."""
        masks, since = [], 0
        for row in range(rows):
            last = self.closes(row)
            masks.append(CLOSING if last else OPEN[since % len(OPEN)])
            since = 0 if last else since + 1
        return masks

    def complete(self, stored: Tensor, rows: int) -> Tensor:
        """All signs from those that are stored: bool `[stored rows, cols]` to bool `[rows, cols]`, true for −1."""
        negative = torch.zeros(rows, stored.shape[1], dtype=torch.bool, device=stored.device)
        negative[self.stored(rows).to(stored.device)] = stored
        checks = torch.zeros(stored.shape[1], dtype=torch.uint8, device=stored.device)  # the open ones, as bits
        for row, mask in enumerate(self.masks(rows)):
            if self.closes(row):
                negative[row] = (checks & 1).bool()
            checks ^= negative[row].to(torch.uint8) * mask
            if self.closes(row):
                checks >>= 1
        return negative
