"""Job: a long computation that can be watched, stopped and resumed.

Every function that takes long has a stepwise form beside it, a generator whose name ends in `_steps`: it yields what it is doing
(a step, with the `fraction` of the whole that is done) and returns the result. The plain function runs it with `run_steps`, a
command shows its steps as progress, and a page runs it as a job. A generator inside another is `yield from`, or `map_steps` where
the outer one has steps of its own kind.

A job runs such a generator step by step, in a thread of its own or right here. What it yields is only looked at, never kept,
apart from the latest step; a viewer reads `progress`, `latest` and `seconds_left` whenever it likes. A queue shares a few threads
among the jobs of many visitors.
"""

import atexit
import logging
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable
from weakref import WeakSet

from workbench.errors import JobCancelled, WorkbenchError

S = TypeVar("S")
T = TypeVar("T")
U = TypeVar("U")

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


@dataclass(frozen=True)
class Counted:
    """`done` of `total` equal things are done."""

    done: int
    total: int

    @property
    def fraction(self) -> float:
        """How much of the whole is done, 0 to 1."""
        return self.done / self.total


def run_steps(steps: Generator[S, None, T], on_step: Callable[[S], None] | None = None) -> T:
    """Run `steps` to their end in this thread and return what they return; `on_step` sees each of them."""
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            return stop.value
        if on_step is not None:
            on_step(step)
        del step  # it may hold a whole matrix


def map_steps(steps: Generator[S, None, T], change: Callable[[S], U]) -> Generator[U, None, T]:
    """Run `steps` to their end and return what they return; each step comes out as `change` makes it."""
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            return stop.value
        changed = change(step)
        del step  # it may hold a whole matrix
        yield changed
        del changed


def watch_steps(steps: Generator[S, None, T], see: Callable[[S], None]) -> Generator[S, None, T]:
    """The same steps, each shown to `see` on its way."""

    def show(step: S) -> S:
        see(step)
        return step

    return map_steps(steps, show)


class Turns:
    """Lets a few steps run at once: more would only take time from each other and from the page that shows them.

    Next is the owner who was served longest ago, so that one who asks for much does not keep the others waiting. Whoever has
    waited `patience` seconds goes in any case: what is at work may wait for a lock that this one holds.
    """

    def __init__(self, slots: int, patience: float = 2.0) -> None:
        self.slots, self.patience = slots, patience
        self._waiting: list[Hashable] = []
        self._served: dict[Hashable, int] = {}
        self._busy = self._turn = 0
        self._changed = threading.Condition()

    @contextmanager
    def take(self, owner: Hashable) -> Iterator[None]:
        """Wait for the turn of this owner, and have it for the body."""
        with self._changed:
            self._waiting.append(owner)
            self._changed.wait_for(lambda: self._busy < self.slots and self._first() == owner, self.patience)
            self._waiting.remove(owner)
            self._busy, self._turn = self._busy + 1, self._turn + 1
            self._served[owner] = self._turn
            while len(self._served) > REMEMBERED:
                del self._served[min(self._served, key=self._served.__getitem__)]
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _first(self) -> Hashable:
        return min(self._waiting, key=lambda owner: self._served.get(owner, 0))


_at_work: WeakSet["Job[Any]"] = WeakSet()
_ending = threading.Event()  # the interpreter ends: no job begins any more
EXIT_SECONDS = 30.0  # that the interpreter waits for the steps at hand


@atexit.register
def _end_jobs() -> None:
    """Stop all jobs before the interpreter ends: it would abort where a thread is still at work inside torch."""
    _ending.set()
    jobs = list(_at_work)
    for job in jobs:
        job.cancel()
    for job in jobs:
        job.wait(EXIT_SECONDS)


REMEMBERED = 1000  # owners of whom it is known when they were served
TURNS = Turns(os.cpu_count() or 1)


class Job(Generic[T]):
    """One run of `steps()`, a generator that yields steps and returns the result.

    `cancel` takes effect after the step at hand: the generator is closed and `latest` stays. `resume` calls `steps` again, so a
    callable that remembers what it finished continues there. Callbacks of `on_change` run in the thread of the job. Every step
    waits for its turn among those of all jobs, see `Turns`; `owner` says whose jobs share one (alone, a job is its own).
    """

    def __init__(self, steps: Callable[[], Generator[Any, None, T]], name: str = "job") -> None:
        self.steps, self.name = steps, name
        self.owner: Hashable = None
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

    def give_up(self) -> None:
        """Cancel a job that has not been started; any other is left as it is."""
        with self._lock:
            if self._status is not Status.WAITING:
                return
            self._status = Status.CANCELLED
        self._leave(Status.CANCELLED)

    def resume(self) -> "Job[T]":
        """Start a cancelled or failed job again, in a worker thread."""
        return self.renew().start()

    def renew(self) -> "Job[T]":
        """Make a cancelled or failed job one that waits to be started."""
        with self._lock:
            if self._status not in (Status.CANCELLED, Status.FAILED):
                raise WorkbenchError(f"{self.name} is {self._status}; only a cancelled or failed job can be resumed.")
            self._status, self.error = Status.WAITING, None
            self._finished.clear()
        return self

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
            raise JobCancelled(f"{self.name} was cancelled at {self.progress:.0%}; call resume() to continue.")
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
                raise WorkbenchError(
                    f"{self.name} is {self._status}; a job starts only once. Use resume(), or create another job."
                )
            self._status, self._begin, self._end = Status.RUNNING, time.perf_counter(), math.nan
            self._stop.clear()
            self._finished.clear()

    def _run(self) -> None:
        """Take every step and end in a final status, whatever happens."""
        _at_work.add(self)
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
            while not (self._stop.is_set() or _ending.is_set()):
                try:
                    self._see(self._next_step(run))
                except StopIteration as end:
                    self._result, self.progress = end.value, 1.0
                    return Status.DONE
            return Status.CANCELLED
        finally:
            run.close()

    def _next_step(self, run: Generator[Any, None, T]) -> Any:
        """One step, when it is this job's turn."""
        with TURNS.take(self.owner if self.owner is not None else id(self)):
            return next(run)

    def _see(self, step: Any) -> None:
        self.latest = step
        if isinstance(step, Step):
            self.progress = step.fraction
        self._tell()

    def _leave(self, status: Status) -> None:
        self._status, self._end = status, time.perf_counter()
        _at_work.discard(self)
        self._finished.set()
        self._tell()

    def _tell(self) -> None:
        """A viewer's mistake is logged and must not end the job it watches."""
        for callback in list(self._callbacks):
            try:
                callback(self)
            except Exception:
                log.exception("a callback of %s failed", self.name)


class Queue:
    """Runs the jobs of many owners on a few threads.

    Next is the job of whoever has the fewest running, among those of whoever was served longest ago: one owner with many jobs
    does not keep another one waiting for all of them.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers
        self._waiting: list[tuple[Hashable, Job[Any]]] = []
        self._running: list[tuple[Hashable, Job[Any]]] = []
        self._served: dict[Hashable, int] = {}
        self._turn = self._threads = 0
        self._lock = threading.Lock()

    def add(self, job: Job[Any], owner: Hashable) -> None:
        """Let a job wait for its turn."""
        with self._lock:
            self._waiting.append((owner, job))
            if self._threads < self.workers:
                self._threads += 1
                threading.Thread(target=self._work, name="workbench queue", daemon=True).start()

    def before(self, job: Job[Any]) -> int:
        """How many jobs are at work or came earlier, while this one waits; 0 once it has begun."""
        with self._lock:
            places = [position for position, (_, waiting) in enumerate(self._waiting) if waiting is job]
            return places[0] + len(self._running) if places else 0

    def cancel(self, job: Job[Any]) -> None:
        """Cancel a job, whether it waits or is at work."""
        with self._lock:
            self._waiting = [entry for entry in self._waiting if entry[1] is not job]
        job.give_up()
        job.cancel()

    def drop(self, owner: Hashable) -> None:
        """Cancel all jobs of one owner, and forget them."""
        with self._lock:
            jobs_of_owner = [job for whose, job in [*self._waiting, *self._running] if whose == owner]
            self._served.pop(owner, None)
        for job in jobs_of_owner:
            self.cancel(job)

    def _work(self) -> None:
        while (entry := self._next()) is not None:
            try:
                entry[1].run_here()
            except WorkbenchError:
                log.debug("%s was cancelled as its turn came", entry[1].name)
            finally:
                with self._lock:
                    self._running.remove(entry)

    def _next(self) -> tuple[Hashable, Job[Any]] | None:
        with self._lock:
            if not self._waiting or _ending.is_set():
                self._threads -= 1
                return None
            busy = Counter(owner for owner, _ in self._running)
            entry = min(self._waiting, key=lambda entry: (busy[entry[0]], self._served.get(entry[0], -1)))
            self._waiting.remove(entry)
            self._running.append(entry)
            self._turn += 1
            self._served[entry[0]] = self._turn
            return entry
