"""Progress of a run over many layers."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

from workbench.jobs import map_steps
from workbench.quantized import QuantizedLayer
from workbench.quantizers.contract import Snapshot

T = TypeVar("T")


@dataclass(frozen=True)
class LayerProgress:
    """Piece of work `index` (from 0) of `count`, and what is happening in it; a run has one or two phases (`phase`, from 0).

    A piece is a layer, or a block in which bases are learned or which is refined (`layer` is then its name). `event` is "learn"
    while a transform is learned, "share" while what several layers share is prepared, "layer" while a layer runs (`snapshot`
    says how far), "refine" while a block does, and "done" when a layer is finished (`result`): once more after refinement.
    """

    layer: str
    index: int
    count: int
    event: str
    snapshot: Snapshot | None = None
    result: QuantizedLayer | None = None
    phase: int = 0
    phases: int = 1

    @property
    def fraction(self) -> float:
        """Share of the whole run that is done, 0 to 1; phases count the same, and layers within a phase."""
        inside = 1.0 if self.event == "done" else (self.snapshot.fraction if self.snapshot else 0.0)
        return (self.phase + (self.index + inside) / self.count) / self.phases


@dataclass(frozen=True)
class Place:
    """A layer's place in a run: makes the LayerProgress of what happens there."""

    layer: str
    index: int
    count: int
    phase: int = 0
    phases: int = 1

    def progress(self, event: str, snapshot: Snapshot | None = None, result: QuantizedLayer | None = None) -> LayerProgress:
        """What happens here now."""
        return LayerProgress(self.layer, self.index, self.count, event, snapshot, result, self.phase, self.phases)

    def follow(self, event: str, steps: Generator[Snapshot, None, T]) -> Generator[LayerProgress, None, T]:
        """Run `steps` to their end, telling each Snapshot as progress."""
        return (yield from map_steps(steps, lambda snapshot: self.progress(event, snapshot)))
