"""The commands that list, cancel and resume long runs on this machine."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from workbench.cli.arguments import Json
from workbench.cli.help_pages import PlainCommand, PlainGroup
from workbench.cli.output import emit_page
from workbench.cli.streams import note
from workbench.cli.tables import Column, format_rows

if TYPE_CHECKING:
    from workbench.run_records import RunRecord

WAIT_SECONDS = 10.0  # for a run that was asked to stop
MAX_LISTED_RUNS = 20  # --json has all
RUN_COLUMNS = (
    Column("id"), Column("state"), Column("done", right=True), Column("started"), Column("process", right=True),
    Column("command", folds=True),
)  # fmt: skip

Run = Annotated[str, typer.Argument(metavar="ID", help="Id of the run, or how it begins.")]

jobs = typer.Typer(cls=PlainGroup, help="Long runs on this machine: list, cancel, resume.", invoke_without_command=True)


@jobs.callback()
def list_jobs(context: typer.Context, as_json: Json = False) -> None:
    """List long runs on this machine, those of the explorer too: what runs, since when, how far, and in which process.

    A run is `dead` where its process has ended without saying so, for example because it was killed. Runs are recorded in the
    cache folder, which WORKBENCH_CACHE sets.
    """
    if context.invoked_subcommand is not None:
        return
    from workbench.run_records import find_runs_folder, list_runs

    runs = list_runs()
    facts = {"folder": str(find_runs_folder()), "runs": [_describe_run(run) for run in runs]}
    emit_page(facts, as_json=as_json, text=_format_runs(runs, len(runs) - MAX_LISTED_RUNS))


@jobs.command("cancel", cls=PlainCommand)
def cancel_job(run: Run, as_json: Json = False) -> None:
    """Stop a run after its step at hand; what it has finished is kept."""
    from workbench.run_records import find_run, request_cancel, wait_for_end

    record = find_run(run)
    request_cancel(record)
    record = wait_for_end(record, WAIT_SECONDS)
    waits = record.state.value == "running"
    sentence = f"{record.id} is asked to stop, and does after its step at hand" if waits else f"{record.id} is {record.state}"
    emit_page(_describe_run(record), as_json=as_json, text=f"{sentence}; {record.fraction:.0%} of {record.doing or 'it'} done")


@jobs.command("resume", cls=PlainCommand)
def resume_job(run: Run) -> None:
    """Run a cancelled, failed or dead run again, here and in its folder: it goes on from what is in the cache.

    Finished tasks, and finished layers of a run in sequence, are read from the cache; the result is the same as without a stop.
    """
    from workbench.cli import app
    from workbench.errors import WorkbenchError
    from workbench.run_records import find_run, resume_run

    record = find_run(run)
    if record.state.value in ("running", "finished"):
        raise WorkbenchError(f"{record.id} is {record.state}; to run it again: {record.command}")
    if record.is_on_page:
        raise WorkbenchError(f"{record.id} ran on a page of the explorer, where Resume goes on with it; no command can.")
    with resume_run(record):
        note(f"{record.id}: {record.command}")
        app(list(record.arguments), prog_name="workbench", standalone_mode=False)


def _describe_run(run: "RunRecord") -> dict[str, object]:
    """A run as JSON values."""
    from dataclasses import asdict

    return {**asdict(run), "command": run.command, "state": run.state.value}


def _format_runs(runs: "list[RunRecord]", more: int) -> str:
    """The latest runs as a table, with why those that failed did."""
    if not runs:
        return "no long run is recorded here"
    rows = []
    for run in runs[:MAX_LISTED_RUNS]:
        started = time.strftime("%m-%d %H:%M", time.localtime(run.started))
        rows.append([run.id, run.state.value, f"{run.fraction:.0%}", started, str(run.process), run.command])
    lines = [format_rows(RUN_COLUMNS, rows), ""]
    if more > 0:
        lines.append(f"… and {more:,} earlier ones; --json lists all")
    lines += [f"{run.id} failed: {run.message}" for run in runs[:MAX_LISTED_RUNS] if run.state.value == "failed" and run.message]
    stopped = next((run for run in runs if run.state.value in ("cancelled", "failed", "dead") and not run.is_on_page), None)
    if stopped is not None:
        lines.append(f"`workbench jobs resume {stopped.id}` goes on with the latest that did not finish")
    return "\n".join(lines)
