"""Job: a long computation that can be watched, stopped and taken up again.

A job runs a generator step by step, in a thread of its own or right here. What it yields is only looked at, never kept,
apart from the latest step; a viewer reads `progress`, `latest` and `seconds_left` whenever it likes.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Generator
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from workbench.errors import JobCancelled, WorkbenchError

T = TypeVar("T")

log = logging.getLogger(__name__)


class Status(StrEnum):
    """Where a job stands; the last three are final until `resume`."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@runtime_checkable
class Step(Protocol):
    """What a job can read progress from. Other steps leave the progress where it was."""

    @property
    def fraction(self) -> float:
        """How much of the whole is done, 0 to 1."""


class Job(Generic[T]):
    """One run of `steps()`, a generator that yields steps and returns the result.

    `cancel` takes effect after the step at hand: the generator is closed and `latest` stays. `resume` calls `steps` again, so a
    callable that remembers what it finished continues there. Callbacks of `on_change` run in the thread of the job.
    """

    def __init__(self, steps: Callable[[], Generator[Any, None, T]], name: str = "job") -> None:
        self.steps, self.name = steps, name
        self.latest: Any = None
        self.progress = 0.0
        self.error: Exception | None = None
        self._status = Status.WAITING
        self._result: T | None = None
        self._begin = self._end = math.nan
        self._stop = threading.Event()
        self._finished = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[Job[T]], None]] = []

    @property
    def status(self) -> Status:
        """Waiting, running, done, cancelled or failed."""
        return self._status

    @property
    def seconds(self) -> float:
        """Time since the start, up to the end once there is one."""
        if math.isnan(self._begin):
            return 0.0
        return (time.perf_counter() if math.isnan(self._end) else self._end) - self._begin

    @property
    def seconds_left(self) -> float | None:
        """What is left at the speed so far; None while nothing is known, 0 at the end."""
        if self._finished.is_set():
            return 0.0
        return self.seconds * (1 - self.progress) / self.progress if self.progress > 0 else None

    def start(self) -> "Job[T]":
        """Run in a worker thread and return at once."""
        self._enter()
        threading.Thread(target=self._run, name=f"workbench {self.name}", daemon=True).start()
        return self

    def run_here(self) -> "Job[T]":
        """Run in this thread until the end; an interrupt (Ctrl-C, the notebook's stop button) cancels the job."""
        self._enter()
        self._run()
        return self

    def cancel(self) -> None:
        """Stop after the step at hand; a job that waits or has ended is left as it is."""
        if self._status is Status.RUNNING:
            self._stop.set()

    def resume(self) -> "Job[T]":
        """Start a cancelled or failed job again, in a worker thread."""
        if self._status not in (Status.CANCELLED, Status.FAILED):
            raise WorkbenchError(f"{self.name} is {self._status}; only a cancelled or failed job can be resumed.")
        with self._lock:
            self._status, self.error = Status.WAITING, None
        return self.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Block until the job has ended or the time is over; whether it has ended."""
        return self._finished.wait(seconds)

    def result(self, seconds: float | None = None) -> T:
        """What the generator returned, once it has; raises its error, JobCancelled, or WorkbenchError when time is over."""
        if self._status is Status.WAITING:
            raise WorkbenchError(f"{self.name} has not been started; call start() or run_here() first.")
        if not self.wait(seconds):
            stand = f"still running after {seconds:g} s, {self.progress:.0%} done"
            raise WorkbenchError(f"{self.name} is {stand}; wait longer or cancel().")
        if self._status is Status.CANCELLED:
            raise JobCancelled(f"{self.name} was cancelled at {self.progress:.0%}; resume() takes it up again.")
        if self.error is not None:
            raise self.error
        return self._result  # type: ignore[return-value]

    def on_change(self, callback: Callable[["Job[T]"], None]) -> Callable[[], None]:
        """Call `callback(job)` at the start, after every step and at the end; returns the function that ends this."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def _enter(self) -> None:
        with self._lock:
            if self._status is not Status.WAITING:
                raise WorkbenchError(f"{self.name} is {self._status}; a job starts once. Use resume() or make another.")
            self._status, self._begin, self._end = Status.RUNNING, time.perf_counter(), math.nan
            self._stop.clear()
            self._finished.clear()

    def _run(self) -> None:
        """Take every step and end in a final status, whatever happens."""
        self._tell()
        try:
            self._leave(self._take_steps())
        except Exception as error:  # noqa: BLE001  a failed job reports through `.error` and `.result()`
            self.error = error
            self._leave(Status.FAILED)
        except BaseException:
            self._leave(Status.CANCELLED)
            raise

    def _take_steps(self) -> Status:
        run = self.steps()
        try:
            while not self._stop.is_set():
                try:
                    self._see(next(run))
                except StopIteration as end:
                    self._result, self.progress = end.value, 1.0
                    return Status.DONE
            return Status.CANCELLED
        finally:
            run.close()

    def _see(self, step: Any) -> None:
        self.latest = step
        if isinstance(step, Step):
            self.progress = step.fraction
        self._tell()

    def _leave(self, status: Status) -> None:
        self._status, self._end = status, time.perf_counter()
        self._finished.set()
        self._tell()

    def _tell(self) -> None:
        """A viewer's mistake is logged and must not end the job it watches."""
        for callback in list(self._callbacks):
            try:
                callback(self)
            except Exception:
                log.exception("a callback of %s failed", self.name)
