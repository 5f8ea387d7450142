"""CodingTrace: a trace of the coding of one matrix that a viewer can step through, in a few kilobytes.

A few rows are watched, columns are taken together in cells. A coded column stays as it is until the parameters are refitted, so
one picture and the time at which each cell was coded stand for all frames; only how far the columns not yet coded have moved is
kept for each. At most 32 rows × 96 cells in at most three pictures and 24 frames: below 64 kB.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.quantizers.contract import Codebooks

TRACE_ROWS, TRACE_CELLS, TRACE_FRAMES = 32, 96, 24


@dataclass(frozen=True)
class Picture:
    """The matrix at one moment, watched rows × cells: `residual` is max |now − original| in a cell (float16), `flipped` the
    weights of a cell whose sign is another one (uint8)."""

    residual: Tensor
    flipped: Tensor


@dataclass(frozen=True)
class CodingTrace:
    """How one matrix `[·, cols]` was coded, in the basis that is coded.

    `rows` are those watched, `width` the columns of a cell. `coded [cells]` is the frame after which a cell is coded, `ends
    [frames]` how many columns are. `moved [frames, cells]`: how far columns not yet coded have moved, as the share of their
    energy in the watched rows, 0 where coded. `error [frames]`: squared error of the coded columns over the energy of all, in the
    watched rows. `groups [·, cells]` is the last coder with a weight in the cell. `pictures` by event: "block" (all columns
    coded), then "refit" and "correction" as they happened. `rounds` are the losses of each codebook's training, round by round.
    """

    rows: tuple[int, ...]
    cols: int
    width: int
    coded: Tensor
    ends: tuple[int, ...]
    moved: Tensor
    error: tuple[float, ...]
    groups: Tensor
    pictures: dict[str, Picture]
    rounds: tuple[tuple[float, ...], ...] = ()

    @property
    def bytes(self) -> int:
        """What the trace takes in memory."""
        pictures = [tensor for picture in self.pictures.values() for tensor in (picture.residual, picture.flipped)]
        return sum(tensor.nbytes for tensor in (self.coded, self.moved, self.groups, *pictures))

    def then(self, event: str, picture: Picture) -> "CodingTrace":
        """The trace with one more picture at its end."""
        return replace(self, pictures={**self.pictures, event: picture})


class TraceRecorder:
    """Records the coding of `w [rows, cols]`: `see` every tile before it is coded, then `trace` once all are."""

    def __init__(self, w: Tensor) -> None:
        self.rows = torch.linspace(0, len(w) - 1, min(TRACE_ROWS, len(w))).round().to(torch.int64).unique()
        self.original = w[self.rows]
        self.cols = w.shape[1]
        self.width = -(-self.cols // TRACE_CELLS)
        self.stride = -(-self.cols // TRACE_FRAMES)
        self.coded = torch.zeros(self.cols, dtype=torch.bool)
        self.at = torch.zeros(self.cols, dtype=torch.int64)  # the frame after which each column is coded
        self.frames: list[Tensor] = []
        self.ends: list[int] = []
        self.waiting = self.count = 0

    def see(self, current: Tensor, start: int, stop: int) -> None:
        """The matrix as it stands when columns `start:stop` are about to be coded; costs nothing but once in a while."""
        if self.waiting >= self.stride:
            self._frame(current)
        self.coded[start:stop] = True
        self.at[start:stop] = len(self.frames)
        self.waiting += stop - start
        self.count += stop - start

    def _frame(self, current: Tensor) -> None:
        """End a frame: the columns seen so far are coded, the others have moved."""
        drift = (current[self.rows] - self.original).square().sum(0) * ~self.coded
        self.frames.append(drift)
        self.ends.append(self.count)
        self.waiting = 0

    def picture(self, current: Tensor) -> Picture:
        """The matrix as it stands."""
        now = current[self.rows]
        residual, flipped = (now - self.original).abs(), (now * self.original) < 0
        return Picture(self._cells(residual).amax(-1).half(), self._cells(flipped).sum(-1).to(torch.uint8))

    def trace(self, current: Tensor, masks: Sequence[Tensor], rounds: tuple[tuple[float, ...], ...] = ()) -> CodingTrace:
        """All frames, now that every column of `current` is coded; `masks` say which coder owns which weight."""
        if self.waiting:
            self._frame(current)
        energy = self.original.square().sum(0)
        cell_energy = self._cells(energy).sum(-1).clamp(min=1e-30)
        frame_error = torch.zeros(len(self.frames)).index_add_(0, self.at, (current[self.rows] - self.original).square().sum(0))
        groups = torch.stack([mask[self.rows] for mask in masks]).to(torch.uint8).argmax(0).to(torch.uint8)
        return CodingTrace(
            rows=tuple(self.rows.tolist()),
            cols=self.cols,
            width=self.width,
            coded=self._cells(self.at).amax(-1).to(torch.uint8),
            ends=tuple(self.ends),
            moved=torch.stack([self._cells(drift).sum(-1) / cell_energy for drift in self.frames]).half(),
            error=tuple((frame_error.cumsum(0) / energy.sum().clamp(min=1e-30)).tolist()),
            groups=self._cells(groups).amax(-1),
            pictures={"block": self.picture(current)},
            rounds=rounds,
        )

    def _cells(self, values: Tensor) -> Tensor:
        """`[..., cols]` as `[..., cells, width]`; the last cell is filled up with zeros."""
        missing = -self.cols % self.width
        return torch.nn.functional.pad(values, (0, missing)).unflatten(-1, (-1, self.width))


def list_codebook_losses(shared: Codebooks | None) -> list[tuple[float, ...]]:
    """The losses of each codebook that `Coder.prepare` has trained, round by round."""
    return [] if shared is None else [tuple(losses[losses.isfinite()].tolist()) for losses in shared.rounds]
