"""Progress of a run over many layers."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeVar

from workbench.jobs import map_steps
from workbench.quantized import QuantizedLayer
from workbench.quantizers.contract import Snapshot

T = TypeVar("T")


@dataclass(frozen=True)
class TrainingState:
    """Where the training of a whole model is: divergences in nats per token, `held_out` that of the last look."""

    step: int
    steps: int
    divergence: float
    held_out: float | None
    seconds_left: float

    def __str__(self) -> str:
        apart = "" if self.held_out is None else f" ({self.held_out:.3f} on held-out text)"
        losses = f"divergence {self.divergence:.3f} nats per token{apart}"
        return f"training the whole model: step {self.step} of {self.steps}, {losses}, about {self.time_left} left"

    @property
    def short(self) -> str:
        """The same for one line of a terminal."""
        apart = "" if self.held_out is None else f" ({self.held_out:.3f} held out)"
        return f"step {self.step}/{self.steps}, KL {self.divergence:.3f}{apart}, {self.time_left} left"

    @property
    def time_left(self) -> str:
        """What is left at the pace so far."""
        return f"{self.seconds_left:.0f} s" if self.seconds_left < 60 else f"{self.seconds_left / 60:.0f} min"


@dataclass(frozen=True)
class LayerProgress:
    """Piece of work `index` (from 0) of `count`, and what is happening in it; a run has one or two phases (`phase`, from 0).

    A piece is a layer, or a block in which bases are learned or which is refined (`layer` is then its name), or the training of
    the whole model (`layer` is then the model's), which takes as long as `width` pieces. `event` is "learn" while a transform is
    learned, "share" while what several layers share is prepared, "layer" while a layer runs (`snapshot` says how far), "refine"
    while a block or the model is refined, and "done" when a layer is finished (`result`): once more after refinement.
    """

    layer: str
    index: int
    count: int
    event: str
    snapshot: Snapshot | None = None
    result: QuantizedLayer | None = None
    phase: int = 0
    phases: int = 1
    width: int = 1

    @property
    def fraction(self) -> float:
        """Share of the whole run that is done, 0 to 1; phases count the same, and layers within a phase."""
        inside = 1.0 if self.event == "done" else (self.snapshot.fraction if self.snapshot else 0.0)
        return (self.phase + (self.index + self.width * inside) / self.count) / self.phases

    @property
    def stage(self) -> TrainingState | str | None:
        """What the refinement of the whole model is at; its str() are words. None at other work."""
        return self.snapshot.detail.get("stage") if self.snapshot is not None else None

    @property
    def short_stage(self) -> str | None:
        """The same in words for one line of a terminal."""
        return self.stage.short if isinstance(self.stage, TrainingState) else self.stage


@dataclass(frozen=True)
class Place:
    """A layer's place in a run: makes the LayerProgress of what happens there."""

    layer: str
    index: int
    count: int
    phase: int = 0
    phases: int = 1
    width: int = 1

    def progress(self, event: str, snapshot: Snapshot | None = None, result: QuantizedLayer | None = None) -> LayerProgress:
        """What happens here now."""
        return LayerProgress(self.layer, self.index, self.count, event, snapshot, result, self.phase, self.phases, self.width)

    def follow(self, event: str, steps: Generator[Snapshot, None, T]) -> Generator[LayerProgress, None, T]:
        """Run `steps` to their end, telling each Snapshot as progress."""
        return (yield from map_steps(steps, lambda snapshot: self.progress(event, snapshot)))
