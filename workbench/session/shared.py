"""What all sessions on one model have in common, read and computed once for all of them."""

import os
from functools import cached_property
from threading import RLock

from workbench.analysis import weights
from workbench.analysis.squeeze import Squeeze
from workbench.calibration import CalibrationStats, calibrate
from workbench.jobs import Queue
from workbench.models import ModelHandle
from workbench.models.text import text
from workbench.store import Store

CALIBRATION_TOKENS = 16_384
SMALL = 20_000_000  # weights of a model that is calibrated without being asked: seconds
QUEUE = Queue(max(1, (os.cpu_count() or 1) // 2))  # long jobs of all sessions of this process, on whatever model


class SharedModel:
    """A model's handle, its calibration and the sketches of its weights."""

    def __init__(self, model: ModelHandle) -> None:
        self.model = model
        self.sketches: dict[str, weights.Sketch] = {}
        self._lock = RLock()

    @cached_property
    def squeeze(self) -> Squeeze:
        """The stops of the squeeze slider, built once for all sessions."""
        return Squeeze(self.model)

    @property
    def queue(self) -> Queue:
        """Where the long jobs of all sessions wait for their turn."""
        return QUEUE

    @property
    def is_small(self) -> bool:
        """Whether reading the calibration text takes seconds."""
        return int(self.model.layers()["parameters"].sum()) <= SMALL

    @property
    def is_calibrated(self) -> bool:
        """Whether the text has been run through the model already."""
        return "_stats" in self.__dict__

    def stats(self) -> CalibrationStats:
        """Second moments of the built-in calibration text, made once for all sessions."""
        with self._lock:
            return self._stats

    @cached_property
    def _stats(self) -> CalibrationStats:
        return calibrate(self.model, text("calibration"), tokens=CALIBRATION_TOKENS, store=Store())

    def sketch(self, layer: str) -> weights.Sketch:
        """Moments and histogram of a layer's weights, read once."""
        if layer not in self.sketches:
            self.sketches[layer] = weights.sketch(self.model.weight(layer))
        return self.sketches[layer]
