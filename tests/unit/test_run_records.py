"""Records of long runs: what is written, who reads it, how a run is asked to stop, and what damaged files say."""

import json
import os
import subprocess
import sys
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench import job_record, run_records
from workbench.errors import JobCancelled, OutputError, WorkbenchError
from workbench.job_record import record_job
from workbench.jobs import Counted, Job, Status
from workbench.run_records import (
    RunRecorder,
    RunState,
    find_current_recorder,
    find_run,
    list_runs,
    record_run,
    request_cancel,
    resume_run,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(run_records, "SECONDS_BETWEEN", 0)
    return tmp_path


def test_a_run_is_seen_while_it_runs_and_later() -> None:
    assert find_current_recorder() is None
    with record_run(["sweep", "builtin", "--seeds", "0,1"]) as recorder:
        assert find_current_recorder() is recorder
        recorder.report("sweeping", 0.25)
        (run,) = list_runs()
        assert run == recorder.record
        assert (run.command, run.state, run.fraction) == ("workbench sweep builtin --seeds 0,1", RunState.RUNNING, 0.25)
        assert (run.process, run.folder) == (os.getpid(), str(Path.cwd()))
    assert find_current_recorder() is None
    (run,) = list_runs()
    assert (run.state, run.fraction) == (RunState.FINISHED, 1)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (KeyboardInterrupt(), RunState.CANCELLED),
        (JobCancelled("stopped."), RunState.CANCELLED),
        (WorkbenchError("no such layer."), RunState.FAILED),
        (ZeroDivisionError("a bug"), RunState.FAILED),
    ],
    ids=["ctrl-c", "cancelled", "mistake", "bug"],
)
def test_how_a_run_ends(error: BaseException, state: RunState) -> None:
    with suppress(type(error)), record_run(["eval"]) as recorder:
        recorder.report("reading", 0.5)
        raise error
    (run,) = list_runs()
    assert (run.state, run.fraction, run.message) == (state, 0.5, str(error) if state is RunState.FAILED else "")


def test_a_run_is_asked_to_stop(cache: Path) -> None:
    with suppress(JobCancelled), record_run(["sweep"]) as recorder:
        recorder.report("sweeping", 0.6)
        request_cancel(find_run(recorder.record.id[:4]))
        with pytest.raises(JobCancelled, match=r"cancelled at 70% of sweeping; `workbench jobs resume \w{6}` goes on") as error:
            recorder.report("sweeping", 0.7)
        raise error.value
    (run,) = list_runs()
    assert run.state is RunState.CANCELLED
    assert not list(cache.glob("runs/*.cancel"))
    with pytest.raises(WorkbenchError, match=f"{run.id} is cancelled; only a running one can be cancelled"):
        request_cancel(run)


def test_a_killed_run_is_dead(cache: Path) -> None:
    code = (
        "import os, signal\nfrom workbench.run_records import record_run\n"
        "with record_run(['quantize', 'builtin']) as recorder:\n"
        "    recorder.report('quantizing', 0.4)\n    os.kill(os.getpid(), getattr(signal, 'SIGKILL', 9))\n"
    )
    folder = str(Path(__file__).parents[2])
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": folder}, check=False)
    (run,) = list_runs()
    assert (run.status, run.state) == ("running", RunState.DEAD)


def test_another_process_with_the_same_number_is_another_run() -> None:
    with record_run(["eval"]) as recorder:
        RunRecorder(run_records.replace(recorder.record, id="abcdef", process_start=1.0)).write()
        assert find_run("abcdef").state is RunState.DEAD
        RunRecorder(run_records.replace(recorder.record, id="fedcba", process_start=1.0, host="another")).write()
        assert find_run("fedcba").state is RunState.RUNNING  # nothing is known of it but what it says


def test_a_run_goes_on_with_its_record(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    with pytest.raises(KeyboardInterrupt), record_run(["sweep", "builtin"]) as recorder:
        raise KeyboardInterrupt
    run = run_records.replace(find_run(recorder.record.id), folder=str(tmp_path / "work"))
    before = Path.cwd()
    with resume_run(run), record_run(["jobs", "resume", run.id]) as again:
        assert Path.cwd() == tmp_path / "work"
        assert (again.record.id, again.record.arguments) == (run.id, ("sweep", "builtin"))
    assert Path.cwd() == before
    assert [one.state for one in list_runs()] == [RunState.FINISHED]
    gone = run_records.replace(run, folder=str(tmp_path / "gone"))
    with pytest.raises(OutputError, match="which cannot be entered"), resume_run(gone):
        pass


def test_ids_that_are_none_or_several() -> None:
    for name in ("aa0000", "aa1111"):
        with record_run(["eval"]) as recorder:
            RunRecorder(run_records.replace(recorder.record, id=name)).write()
    for start, count in (("aa", "2 runs have"), ("zz", "no run has"), ("", "no run has")):
        with pytest.raises(WorkbenchError, match=f"{count} an id that begins with '{start}'"):
            find_run(start)
    assert find_run("aa1").id == "aa1111"


def test_a_folder_that_cannot_be_written_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file"))
    with record_run(["eval"]) as recorder:
        recorder.report("reading", 0.5)
    assert list_runs() == []


def test_old_records_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_records, "MAX_RECORDS", 3)
    for number in range(6):
        with record_run(["eval", str(number)]):
            pass
    assert [run.arguments[1] for run in list_runs()] == ["5", "4", "3", "2"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_records_are_left_out(cache: Path, data: st.DataObject) -> None:
    with record_run(["eval"]) as recorder:
        path = run_records.find_runs_folder() / f"{recorder.record.id}.json"
    facts = json.loads(path.read_text())
    name = data.draw(st.sampled_from(sorted(facts)))
    other = data.draw(st.none() | st.booleans() | st.lists(st.integers(), max_size=2) | st.just({}) | st.text(max_size=3))
    path.write_text(json.dumps({**facts, name: other}))
    for run in list_runs():
        assert isinstance(run.state, RunState)
        assert run.command.startswith("workbench")
    path.write_bytes(path.read_bytes()[: data.draw(st.integers(0, 40))])
    assert list_runs() == []
    path.unlink()


def test_a_long_job_of_a_page_is_listed_and_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_record, "LONG_SECONDS", 0)
    seen: list[tuple[str, RunState]] = []

    def steps() -> Generator[Counted, None, None]:
        yield Counted(1, 4)
        (record,) = list_runs()
        seen.append((record.command, record.state))
        request_cancel(record)
        yield Counted(2, 4)
        raise AssertionError("it was cancelled before")

    job = Job(steps, "quantizing the whole model")
    record_job(job)
    job.run_here()
    assert seen == [("workbench explore (quantizing the whole model)", RunState.RUNNING)]
    (record,) = list_runs()
    assert (job.status, record.state, record.fraction, record.is_on_page) == (Status.CANCELLED, RunState.CANCELLED, 0.5, True)


def test_a_short_job_is_not_listed() -> None:
    def steps() -> Generator[Counted, None, None]:
        yield Counted(1, 2)

    job = Job(steps, "preview")
    record_job(job)
    job.run_here()
    assert list_runs() == []
