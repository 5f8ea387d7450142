"""A long job of a page among the runs of this machine, which `workbench jobs` lists and cancels."""

from typing import Any

from workbench.errors import JobCancelled
from workbench.jobs import Job, Status
from workbench.run_records import PAGE_ARGUMENTS, RunRecorder, RunState, start_run

LONG_SECONDS = 10.0  # a job that takes less is not worth a line in a list
STATES = {Status.DONE: RunState.FINISHED, Status.CANCELLED: RunState.CANCELLED, Status.FAILED: RunState.FAILED}


class JobRecord:
    """Lists a job once it has been running for long, and stops it where somebody has asked for that there."""

    def __init__(self, job: Job[Any]) -> None:
        self.recorder: RunRecorder | None = None
        job.on_change(self._follow)

    def _follow(self, job: Job[Any]) -> None:
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
