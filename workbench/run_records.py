"""Records of long runs on this machine, one small file each: what runs, since when, how far, and in which process.

Commands are recorded, and long jobs of the explorer's pages.

Whoever shares the cache folder reads them: another terminal, or another machine. A run whose process has ended without a word
(killed, a machine that was switched off) is told from its process number and that process's start. A run is cancelled by a file
beside its record, which it looks for whenever it reports its progress.
"""

import json
import os
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from pathlib import Path

import psutil

from workbench.atomic import replace_file
from workbench.cache_folder import find_cache_folder
from workbench.errors import JobCancelled, OutputError, WorkbenchError
from workbench.json_value import read
from workbench.outputs import translate_os_errors

SECONDS_BETWEEN = 1.0  # two writes of a record
MAX_RECORDS = 200  # of runs that have ended
PAGE_ARGUMENTS = ("explore",)  # of a job on a page
START_TOLERANCE_SECONDS = 2.0  # of a process's start, which some systems round


class RunState(StrEnum):
    """Where a run stands; a dead one has ended without saying so."""

    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"
    DEAD = "dead"


@dataclass(frozen=True)
class RunRecord:
    """One run: the arguments of its command and the folder it was started in, its process, progress and end.

    Times are seconds since 1970. `status` is what the run itself has written last, `state` what is true now.
    """

    id: str
    arguments: tuple[str, ...]
    folder: str
    host: str
    process: int
    process_start: float
    started: float
    updated: float
    doing: str = ""
    fraction: float = 0.0
    status: str = RunState.RUNNING.value
    message: str = ""

    @property
    def command(self) -> str:
        """The command as it was typed, without quotes; of a job on a page with what it does."""
        return " ".join(("workbench", *self.arguments)) + (f" ({self.doing})" if self.is_on_page else "")

    @property
    def is_on_page(self) -> bool:
        """Whether it is a job of one of the explorer's pages, which no command can go on with."""
        return self.arguments == PAGE_ARGUMENTS

    @property
    def state(self) -> RunState:
        """The status, or dead where the run's process is no longer there; of another machine's nothing more is known."""
        status = RunState(self.status)
        if status is RunState.RUNNING and self.host == socket.gethostname() and not is_alive(self.process, self.process_start):
            return RunState.DEAD
        return status


def is_alive(process: int, start: float) -> bool:
    """Whether a process of this number, started then, is running; another one may have its number by now."""
    try:
        process_now = psutil.Process(process)
        same = abs(process_now.create_time() - start) < START_TOLERANCE_SECONDS
        return same and process_now.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def find_runs_folder() -> Path:
    """Where the records lie."""
    return find_cache_folder() / "runs"


def list_runs() -> list[RunRecord]:
    """All records, the latest run first; files that are no records are left out.

    Example:
        >>> from workbench.run_records import list_runs, record_run
        >>> with record_run(["squeeze", "builtin"]) as recorder:
        ...     recorder.report("building the stops", 0.5)
        ...     [(run.command, run.state.value) for run in list_runs() if run.id == recorder.record.id]
        [('workbench squeeze builtin', 'running')]
    """
    records = []
    for path in find_runs_folder().glob("*.json"):
        with suppress(WorkbenchError, FileNotFoundError):
            records.append(_read_record(path))
    return sorted(records, key=lambda record: -record.started)


def find_run(start: str) -> RunRecord:
    """The run whose id begins so; WorkbenchError unless there is exactly one."""
    matching = [record for record in list_runs() if record.id.startswith(start)] if start else []
    if len(matching) != 1:
        count = "no run has" if not matching else f"{len(matching)} runs have"
        raise WorkbenchError(f"{count} an id that begins with {start!r}; `workbench jobs` lists them.")
    return matching[0]


def _read_record(path: Path) -> RunRecord:
    """The record of a file; WorkbenchError where it is none."""
    value = read(path, error=WorkbenchError)
    value.check_names("version", *(field.name for field in fields(RunRecord)))
    value.check_version("a record of a run", 1)
    return RunRecord(
        id=value.get("id").as_text(),
        arguments=tuple(element.as_text() for element in value.get("arguments").elements()),
        folder=value.get("folder").as_text(),
        host=value.get("host").as_text(),
        process=value.get("process").as_whole(),
        process_start=value.get("process_start").as_number(),
        started=value.get("started").as_number(),
        updated=value.get("updated").as_number(),
        doing=value.get("doing").as_text(),
        fraction=value.get("fraction").as_number(),
        status=value.get("status").as_choice([state.value for state in RunState]),
        message=value.get("message").as_text(),
    )


def request_cancel(record: RunRecord) -> None:
    """Ask a run to stop after its step at hand; WorkbenchError where it does not run."""
    if record.state is not RunState.RUNNING:
        raise WorkbenchError(f"{record.id} is {record.state}; only a running one can be cancelled.")
    path = _find_cancel_path(record.id)
    with translate_os_errors(path):
        replace_file(path, b"")


def _find_cancel_path(run: str) -> Path:
    return find_runs_folder() / f"{run}.cancel"


class RunRecorder:
    """Writes the record of the run in this process. A folder that cannot be written stops no run: it is then only not listed."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self._written, self._forgotten = 0.0, False

    def report(self, doing: str, fraction: float) -> None:
        """Note how far the run is, at most once a second; JobCancelled where somebody has asked it to stop."""
        self.record = replace(self.record, doing=doing, fraction=min(max(float(fraction), 0.0), 1.0), updated=time.time())
        if time.monotonic() - self._written < SECONDS_BETWEEN:
            return
        self.write()
        if _find_cancel_path(self.record.id).exists():
            raise JobCancelled(
                f"cancelled at {self.record.fraction:.0%} of {doing}; `workbench jobs resume {self.record.id}` goes on."
            )

    def end(self, status: RunState, message: str = "") -> None:
        """Note how the run has ended."""
        fraction = 1.0 if status is RunState.FINISHED else self.record.fraction
        self.record = replace(self.record, status=status.value, message=message, fraction=fraction, updated=time.time())
        self.write()
        self.withdraw_cancel()

    def withdraw_cancel(self) -> None:
        """Remove what asks the run to stop."""
        with suppress(OSError):
            _find_cancel_path(self.record.id).unlink(missing_ok=True)

    def write(self) -> None:
        """Write the record."""
        self._written = time.monotonic()
        if self._forgotten:
            return
        content = json.dumps({"version": 1, **asdict(self.record)}, indent=1)
        with suppress(OSError):
            replace_file(find_runs_folder() / f"{self.record.id}.json", content.encode())

    def forget(self) -> None:
        """Remove the record, and write it no more."""
        self._forgotten = True
        self.remove()

    def remove(self) -> None:
        """Remove the record and what asks its run to stop."""
        self.withdraw_cancel()
        with suppress(OSError):
            (find_runs_folder() / f"{self.record.id}.json").unlink(missing_ok=True)


_current: list[RunRecorder] = []  # of this process: a command runs one
_resumed: list[RunRecord] = []  # the run that this process goes on with


def find_current_recorder() -> RunRecorder | None:
    """The recorder of the run in this process, or None."""
    return _current[-1] if _current else None


@contextmanager
def record_run(arguments: Sequence[str]) -> Iterator[RunRecorder]:
    """Record what happens in the block as one run; within `resume_run` it goes on with the record of that one.

    Args:
        arguments: Of the command, by which it is resumed.

    Yields:
        The recorder, which takes progress.
    """
    recorder = start_run(arguments)
    _current.append(recorder)
    try:
        yield recorder
    except (KeyboardInterrupt, JobCancelled):
        recorder.end(RunState.CANCELLED)
        raise
    except BaseException as error:
        recorder.end(RunState.FAILED, " ".join(str(error).split())[:500])
        raise
    else:
        recorder.end(RunState.FINISHED)
    finally:
        _current.remove(recorder)


def start_run(arguments: Sequence[str], doing: str = "") -> RunRecorder:
    """A recorder whose record is written; whoever begins a run has to end it."""
    recorder = RunRecorder(replace(_make_record(arguments), doing=doing))
    recorder.withdraw_cancel()
    recorder.write()
    _remove_old_records()
    return recorder


def _make_record(arguments: Sequence[str]) -> RunRecord:
    """The record of a run that begins now in this process."""
    run, arguments = (_resumed[-1].id, _resumed[-1].arguments) if _resumed else (os.urandom(3).hex(), arguments)
    now, start = time.time(), psutil.Process().create_time()
    folder, host = str(Path.cwd()), socket.gethostname()
    return RunRecord(run, tuple(arguments), folder, host, os.getpid(), process_start=start, started=now, updated=now)


def _remove_old_records() -> None:
    """Remove the oldest records of runs that have ended, where there are many."""
    ended = [record for record in list_runs() if record.state is not RunState.RUNNING]
    for record in ended[MAX_RECORDS:]:
        RunRecorder(record).remove()


@contextmanager
def resume_run(record: RunRecord) -> Iterator[None]:
    """Let what is run in the block go on with a record, in its folder; OutputError where that is gone."""
    before = Path.cwd()
    try:
        os.chdir(record.folder)
    except OSError as error:
        raise OutputError(
            f"{record.id} was started in {record.folder}, which cannot be entered ({error.strerror}); run `{record.command}` "
            f"where its files are."
        ) from error
    _resumed.append(record)
    try:
        yield
    finally:
        _resumed.remove(record)
        os.chdir(before)


def wait_for_end(record: RunRecord, seconds: float) -> RunRecord:
    """The record once its run has ended, or as it is after so many seconds."""
    limit = time.monotonic() + seconds
    while record.state is RunState.RUNNING and time.monotonic() < limit:
        time.sleep(0.1)
        with suppress(WorkbenchError):
            record = find_run(record.id)
    return record
