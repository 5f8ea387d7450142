"""Perplexity and speed of the original: measured once for all sessions of a server, and cached in the store."""

from collections.abc import Generator, Mapping
from dataclasses import asdict, astuple
from threading import Lock
from typing import Any

from workbench.analysis.decisions.headline import Measured, Measuring, describe_machine, measure_steps
from workbench.analysis.predictions.generation_speed import Running, Speed
from workbench.jobs import Job, Status
from workbench.models import ModelHandle
from workbench.models.perplexity import Window, summarise
from workbench.models.text import Text
from workbench.store import Store, compute_key

VERSION = 1
PROMPT = "Once upon a time"
POLL_SECONDS = 0.05  # seconds between looks at the one job that all wait for


class Original:
    """The measurements of an original on a text and this machine."""

    def __init__(self, model: ModelHandle, text: Text, store: Store) -> None:
        self.model, self.text, self.store = model, text, store
        self._measured: Measured | None = None
        self._job: Job[Measured] | None = None
        self._starting = Lock()

    def find(self) -> Measured | None:
        """What was measured here before, or None."""
        if self._measured is None and (entry := self.store.get(self._key())) is not None:
            self._measured = _read_measured(entry.facts, self.text.name)
        return self._measured

    def record(self, measured: Measured) -> None:
        """Keep what was measured, here or with the same weights in another form."""
        self._measured = measured
        self.store.put(
            self._key(), {}, _serialize_measured(measured), kind="measurement", what=f"{self.model.source} on {self.text.name}"
        )

    def steps(self) -> Generator[Measuring | None, None, Measured]:
        """Measure it, or look on while that is done for somebody else; who leaves meanwhile leaves the others their job."""
        if (measured := self.find()) is not None:
            return measured
        with self._starting:
            if self._job is None or self._job.status is not Status.RUNNING:
                self._job = Job(self._measure, "measuring the original").start()
            job = self._job
        while not job.wait(POLL_SECONDS):
            yield job.latest
        return job.result()

    def _measure(self) -> Generator[Measuring, None, Measured]:
        measured = yield from measure_steps(self.model.language_model(), self.text, PROMPT)
        self.record(measured)
        return measured

    def _key(self) -> str:
        return compute_key("original", VERSION, self.model.fingerprint, self.text.fingerprint, describe_machine())


def _serialize_measured(measured: Measured) -> dict[str, Any]:
    """Measurements as JSON values."""
    return {"windows": [astuple(window) for window in measured.read.windows], "running": asdict(measured.running)}


def _read_measured(stored: Mapping[str, Any], text: str) -> Measured:
    """The inverse of `facts`."""
    running = stored["running"]
    windows = [Window(*values) for values in stored["windows"]]
    return Measured(summarise(windows, text), Running(Speed(**running["speed"]), running["resident_bytes"]))
