"""How much slower work becomes while a job runs in the background, in a subprocess as the explorer's are.

The job is suspended and resumed from turn to turn, and a ratio is that of two turns in a row: other programs on the
machine, whose load is said with the result, slow down both.
"""

import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import psutil

from workbench import subprocess_job
from workbench.errors import WorkbenchError

SETTLE_SECONDS = 0.02  # after the job is suspended or resumed
SUSPEND_SECONDS = 30.0  # how long a job may take to be suspended
MIN_TURNS = 3


@dataclass(frozen=True)
class Contention:
    """Milliseconds that a task takes alone and beside the job (medians), and the ratio (median and quartiles) over turns."""

    task: str
    alone: float
    beside: float
    ratio: float
    low: float
    high: float
    turns: int


@dataclass(frozen=True)
class ContentionResult:
    """A row for each task, the share of a core that the job had beside them, and the machine's load before and after."""

    rows: tuple[Contention, ...]
    job_share: float
    load: tuple[float | None, float | None]
    cores: int

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "results": [asdict(row) for row in self.rows],
            "job_share": self.job_share,
            "load": list(self.load),
            "cores": self.cores,
        }


def measure_contention(
    tasks: Mapping[str, Callable[[], object]],
    module: str,
    options: subprocess_job.Given,
    *,
    turns: int = 15,
    on_progress: Callable[[float, float], None] = lambda *_: None,
) -> ContentionResult:
    """Time each task with and without the job `steps(options)` of a module in the background, in turns.

    A task runs once before it is timed. `on_progress` is told `(turns done, turns)`. WorkbenchError where the job fails, or ends
    before there are three turns.
    """
    if turns < MIN_TURNS:
        raise WorkbenchError(f"{turns} turns; use at least {MIN_TURNS}, for a median and quartiles.")
    for task in tasks.values():
        task()
    load = _read_load()
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    with _run_job(module, options) as job:
        used = 0.0
        worked = 0.0
        for done in range(turns):
            on_progress(done, turns)
            for name, task in tasks.items():
                alone = _measure_alone(job, task)
                before = _count_cpu_seconds(job)
                beside = _measure_time(task)
                used += _count_cpu_seconds(job) - before
                worked += beside
                if not job.is_running() or job.status() == psutil.STATUS_ZOMBIE:
                    raise WorkbenchError(f"the job in the background ended after {done} of {turns} turns; use a longer one.")
                pairs[name].append((alone, beside))
    on_progress(turns, turns)
    rows = tuple(_summarise_pairs(name, times) for name, times in pairs.items())
    return ContentionResult(rows, used / worked, (load, _read_load()), os.cpu_count() or 1)


@contextmanager
def _run_job(module: str, options: subprocess_job.Given) -> Iterator[psutil.Process]:
    """The job's process from its first step on; it is ended on leaving."""
    steps = subprocess_job.run_module_steps(module, options)
    if all(step is None for step in steps):  # reads no further than to the first step
        raise WorkbenchError("the job in the background ended before its first step; use a longer one.")
    job = subprocess_job.list_processes()[-1]
    leave = threading.Event()

    def follow() -> None:
        for _ in steps:  # a pipe that nobody reads would hold the job up
            if leave.is_set():
                return

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    try:
        yield job
    finally:
        leave.set()
        job.resume()  # what is suspended does not hear that it shall end
        reader.join()
        steps.close()


def _measure_alone(job: psutil.Process, task: Callable[[], object]) -> float:
    """Seconds of a task while the job is suspended."""
    job.suspend()
    _require_suspension(job)
    time.sleep(SETTLE_SECONDS)
    seconds = _measure_time(task)
    job.resume()
    time.sleep(SETTLE_SECONDS)
    return seconds


def _require_suspension(job: psutil.Process) -> None:
    """Wait for it: a job of the idle class stops only when it would run next. WorkbenchError where that takes too long."""
    end = time.monotonic() + SUSPEND_SECONDS
    while job.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE):
        if time.monotonic() > end:
            raise WorkbenchError(
                f"the job in the background could not be suspended within {SUSPEND_SECONDS:g} seconds: this machine is too busy "
                f"to compare; stop other programs and measure again."
            )
        time.sleep(SETTLE_SECONDS)


def _measure_time(task: Callable[[], object]) -> float:
    """Seconds of one run."""
    begin = time.perf_counter()
    task()
    return time.perf_counter() - begin


def _count_cpu_seconds(job: psutil.Process) -> float:
    """Processor time that the job has used."""
    times = job.cpu_times()
    return float(times.user + times.system)


def _summarise_pairs(task: str, pairs: list[tuple[float, float]]) -> Contention:
    """What the turns of a task come to."""
    low, ratio, high = statistics.quantiles([beside / alone for alone, beside in pairs], n=4)
    alone, beside = (1e3 * statistics.median(times) for times in zip(*pairs, strict=True))
    return Contention(task, alone, beside, ratio, low, high, len(pairs))


def _read_load() -> float | None:
    """Programs that wanted a core in the last minute; None where the system does not count them."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
