"""State that all sessions on one model share, read and computed once."""

import os
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import cached_property
from threading import Lock, RLock
from typing import Any

from torch import Tensor

from workbench.analysis.decisions.squeeze import Squeeze
from workbench.analysis.predictions.suffix_replay import Replay
from workbench.analysis.weights import residual_stream, sketch_cache
from workbench.analysis.weights.weight_sketch import Sketch
from workbench.calibration import CalibrationStats, calibrate
from workbench.jobs import Counted, Job, Queue, Status
from workbench.models import ModelHandle
from workbench.models.fused import fuse_from_facts
from workbench.models.text import text
from workbench.store import Store, compute_key

CALIBRATION_TOKENS = 16_384
POLL_SECONDS = 0.05  # seconds between looks at a text that is being read
SMALL = 20_000_000  # weights of a model that is calibrated, and whose stops and studies are computed, without being asked
VARIABLE = "WORKBENCH_SQUEEZE"  # "ask": stops are built and studies measured when a visitor presses the button
QUEUE = Queue(max(1, (os.cpu_count() or 1) // 2))  # long jobs of all sessions of this process, on whatever model
BACKGROUND = Queue(1)  # what nobody has asked for, one at a time, so that it takes little from what somebody waits for


@dataclass(frozen=True)
class Read(Counted):
    """One layer has been read: so many weights of the model are known from their sketches."""

    layer: str


@dataclass(frozen=True)
class Heard:
    """`tokens` of the calibration text's `total` have been run through the model."""

    tokens: int
    total: int


class SharedModel:
    """A model's handle, its calibration, the sketches of its weights, and a text to replay."""

    def __init__(self, model: ModelHandle) -> None:
        self.model = model
        self.sketches: dict[str, Sketch] = {}
        self._latest: tuple[str, Tensor] | None = None
        self._hearing, self._reading, self._replaying = RLock(), RLock(), RLock()
        self._starting = Lock()
        self._hearing_job: Job[CalibrationStats] | None = None
        self._tokens_read = 0
        self._streams: dict[bool, residual_stream.Stream] = {}
        self._replays: dict[str, Replay] = {}

    @cached_property
    def squeeze(self) -> Squeeze:
        """The stops of the squeeze slider, built once for all sessions."""
        return Squeeze(self.model)

    @property
    def queue(self) -> Queue:
        """Where the long jobs of all sessions wait for their turn."""
        return QUEUE

    @property
    def background(self) -> Queue:
        """Where jobs wait that begin by themselves, beside those of `queue`."""
        return BACKGROUND

    @property
    def is_small(self) -> bool:
        """Whether reading the calibration text takes seconds."""
        return int(self.model.layers()["parameters"].sum()) <= SMALL

    @property
    def begins_alone(self) -> bool:
        """Whether what a page shows by default is computed without being asked for: for small models, unless the environment says
        "ask"."""
        return self.is_small and os.environ.get(VARIABLE) != "ask"

    @property
    def is_calibrated(self) -> bool:
        """Whether the text has been run through the model already."""
        return "_stats" in self.__dict__

    @property
    def calibration(self) -> str:
        """Which text makes the statistics, and how much of it, for a key."""
        return compute_key(text("calibration").fingerprint, CALIBRATION_TOKENS)

    def stats(self) -> CalibrationStats:
        """Second moments of the built-in calibration text, made once for all sessions."""
        with self._hearing:
            return self._stats

    def stats_steps(self) -> Generator[Heard, None, CalibrationStats]:
        """The same for a job.

        The text is run in a thread of its own: who leaves meanwhile leaves at once, and the others still get it.
        """
        if self.is_calibrated:
            return self._stats
        hearing = self._start_hearing()
        while not hearing.wait(POLL_SECONDS):
            yield Heard(self._tokens_read, CALIBRATION_TOKENS)
        return hearing.result()

    def _start_hearing(self) -> Job[CalibrationStats]:
        """The job that runs the text: one for all who wait for it."""
        with self._starting:
            if self._hearing_job is None or self._hearing_job.status is not Status.RUNNING:
                self._hearing_job = Job(self._hearing_steps, "calibration").start()
            return self._hearing_job

    def _hearing_steps(self) -> Generator[Heard, None, CalibrationStats]:
        yield Heard(0, CALIBRATION_TOKENS)
        return self.stats()

    @cached_property
    def _stats(self) -> CalibrationStats:
        def hear(tokens: int, _: int) -> None:
            self._tokens_read = tokens

        return calibrate(self.model, text("calibration"), tokens=CALIBRATION_TOKENS, on_progress=hear, store=Store())

    def replay(self, fused: Mapping[str, Any] | None = None) -> Replay:
        """The built-in evaluation text with its hidden states kept, made once for all sessions; `fused` as in QuantizedModel."""
        facts = dict(fused or {})
        with self._replaying:
            if str(facts) not in self._replays:
                self._replays[str(facts)] = Replay(fuse_from_facts(self.model, facts), text("evaluation"))
            return self._replays[str(facts)]

    def weight(self, layer: str) -> Tensor:
        """A layer's weight `[rows, cols]` as it is stored; the one asked for last stays in memory. It is not to be changed."""
        latest = self._latest
        if latest is None or latest[0] != layer:
            latest = self._latest = (layer, self.model.weight(layer))
        return latest[1]

    def sketch(self, layer: str) -> Sketch:
        """Moments and histogram of a layer's weights, read once; kept on disk by the content of the weights."""
        with self._reading:
            if layer not in self.sketches:
                self.sketches[layer] = sketch_cache.load_sketch(self.model.weight(layer), Store())
            return self.sketches[layer]

    @property
    def is_sketched(self) -> bool:
        """Whether every layer has been read."""
        return len(self.sketches) == len(self.model.layer_names)

    def sketch_steps(self) -> Generator[Read, None, None]:
        """Read every layer that has not been read, one in memory at a time; visitors who read at once share the work."""
        sizes = {name: self.model.layer(name).rows * self.model.layer(name).cols for name in self.model.layer_names}
        for name in self.model.layer_names:
            if name not in self.sketches:
                self.sketch(name)
                yield Read(sum(sizes[other] for other in list(self.sketches)), sum(sizes.values()), name)

    def stream(self) -> residual_stream.Stream:
        """Every channel of the residual stream through the model, with its inputs once the calibration text has been read."""
        calibrated = self.is_calibrated
        with self._reading:
            if calibrated not in self._streams:
                self._streams[calibrated] = residual_stream.build_stream(
                    self.model, self.sketch, self.stats() if calibrated else None
                )
            return self._streams[calibrated]
