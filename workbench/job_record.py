"""A long job of a page among the runs of this machine, which `workbench jobs` lists and cancels."""

from typing import Any

from workbench.errors import JobCancelled
from workbench.jobs import Job, Status
from workbench.run_records import PAGE_ARGUMENTS, RunRecorder, RunState, start_run

LONG_SECONDS = 10.0  # a job that takes less is not worth a line in a list
STATES = {Status.DONE: RunState.FINISHED, Status.CANCELLED: RunState.CANCELLED, Status.FAILED: RunState.FAILED}


def record_job(job: Job[Any]) -> None:
    """List a job once it has been running for long, and stop it where somebody has asked for that there."""
    job.on_change(_JobRecord().follow)


class _JobRecord:
    """The record of one job, where there is one."""

    def __init__(self) -> None:
        self.recorder: RunRecorder | None = None

    def follow(self, job: Job[Any]) -> None:
        """Note how far the job is, or how it has ended; in the thread of the job."""
        if job.status is Status.RUNNING:
            self._update(job)
        elif self.recorder is not None:
            self.recorder.end(STATES[job.status], str(job.error or ""))
            self.recorder = None

    def _update(self, job: Job[Any]) -> None:
        if self.recorder is None:
            if job.seconds < LONG_SECONDS:
                return
            self.recorder = start_run(PAGE_ARGUMENTS, job.name)
        try:
            self.recorder.report(job.name, job.progress)
        except JobCancelled:
            job.cancel()
