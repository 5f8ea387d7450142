"""Tasks are timed in turns with a job that works and one that is suspended, and the job is gone afterwards."""

from pathlib import Path

import psutil
import pytest

from workbench import subprocess_job
from workbench.bench.contention import measure_contention
from workbench.errors import WorkbenchError

JOB = """
def steps(given):
    number = 0
    while given["turns"] is None or number < given["turns"]:
        sum(range(10_000))
        number += 1
        yield {"number": number}
"""


@pytest.fixture(autouse=True)
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "busy.py").write_text(JOB)
    monkeypatch.syspath_prepend(tmp_path)


def test_each_task_runs_alone_and_beside_the_job() -> None:
    states: list[str] = []

    def task() -> None:
        states.extend(process.status() for process in subprocess_job.list_processes())

    shares: list[float] = []
    result = measure_contention(
        {"look": task}, "busy", {"turns": None}, turns=3, on_progress=lambda *done: shares.append(done[0])
    )
    suspended = [state == psutil.STATUS_STOPPED for state in states]
    assert suspended == [True, False] * 3
    (row,) = result.rows
    assert (row.task, row.turns) == ("look", 3)
    assert row.low <= row.ratio <= row.high
    assert shares == [0, 1, 2, 3]
    assert subprocess_job.list_processes() == []


def test_what_cannot_be_measured_is_said() -> None:
    with pytest.raises(WorkbenchError, match="2 turns; use at least 3"):
        measure_contention({}, "busy", {"turns": None}, turns=2)
    with pytest.raises(WorkbenchError, match="the job in the background ended before its first step"):
        measure_contention({}, "busy", {"turns": 0}, turns=3)
    assert subprocess_job.list_processes() == []


def test_a_job_that_does_not_stop_is_no_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.Process.suspend", lambda _: None)
    monkeypatch.setattr("workbench.bench.contention.SUSPEND_SECONDS", 0.1)
    with pytest.raises(WorkbenchError, match=r"could not be suspended within 0\.1 seconds.*measure again"):
        measure_contention({"nothing": lambda: None}, "busy", {"turns": None}, turns=3)
    assert subprocess_job.list_processes() == []
