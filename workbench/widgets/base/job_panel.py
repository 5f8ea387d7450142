"""A job on the screen: its progress, remaining time and memory, and the buttons to cancel or resume it."""

import time
from collections.abc import Callable, Generator
from typing import Any

import panel as pn
import param
import psutil

from workbench import subprocess_job
from workbench.job_record import record_job
from workbench.jobs import Job, Queue, Status
from workbench.session import Heard
from workbench.views import theme as themes
from workbench.widgets.base.markup import render_paragraph
from workbench.widgets.base.notices import Notices
from workbench.widgets.panel_patches.comm_main_thread import find_kernel
from workbench.widgets.panel_patches.render_probe import Drawn

POLL = 200  # milliseconds between looks at a running job
PATIENCE = 0.4  # seconds after which it is said that something short is being worked out
DRAWN = 30.0  # seconds after the first look at a job, after which a notebook's page has been drawn
ENDED = {Status.DONE: "Done", Status.CANCELLED: "Cancelled", Status.FAILED: "Failed"}


def measure_memory() -> int:
    """Bytes of memory that this process has now, and those in which it has work done."""
    return int(psutil.Process().memory_info().rss) + subprocess_job.measure_memory()


class JobPanel(pn.viewable.Viewer):
    """Runs generators as jobs, one at a time; an error becomes a notice. `running` can be watched, for what must wait.

    With a `queue` jobs wait for their turn among those of all visitors; without one they begin at once, as short ones should.
    When the visitor leaves they end. `threaded=False` runs them in this thread.
    """

    running = param.Boolean(default=False, doc="whether a job is running")

    def __init__(self, notices: Notices, *, threaded: bool = True, period: int = POLL, queue: Queue | None = None) -> None:
        super().__init__()
        self.notices, self.threaded, self.period = notices, threaded, period
        self.queue = queue if threaded else None
        self.owns_job, self.left = True, False
        self.job: Job[Any] | None = None
        self.peak = 0
        self._first_look: float | None = None  # the time of it, on the clock of `time.monotonic`
        self._poll: Any = None
        self._next: Callable[[], None] | None = None
        self._on_step: Callable[[Job[Any]], str | None] = lambda _: None
        self._ended: Callable[[Job[Any]], None] = lambda _: None
        self.progress = pn.indicators.Progress(value=0, max=100, bar_color="primary", sizing_mode="stretch_width", visible=False)
        self.words = pn.pane.HTML("", sizing_mode="stretch_width")
        self.stop = pn.widgets.Button(label="Cancel", disabled=True, visible=False, width=90)
        self.again = pn.widgets.Button(label="Resume", visible=False, width=90, description="Resume the cancelled job")
        self.stop.on_click(lambda _: self.notices.guard(self.cancel))
        self.again.on_click(lambda _: self.notices.guard(self.resume))
        if pn.state.curdoc is not None and pn.state.curdoc.session_context is not None:
            pn.state.on_session_destroyed(lambda _: self.close())
        self.page = Drawn() if find_kernel() is not None else None
        parts = [pn.Row(self.stop, self.again), self.progress, self.words, *([] if self.page is None else [self.page])]
        self.view = pn.Column(*parts, sizing_mode="stretch_width")

    def run(
        self,
        steps: Callable[[], Generator[Any, None, Any]],
        name: str,
        *,
        on_step: Callable[[Job[Any]], str | None] = lambda _: None,
        ended: Callable[[Job[Any]], None] = lambda _: None,
        latest: bool = False,
    ) -> None:
        """Start a job; while another one runs nothing happens, or with `latest` that one is stopped and then this one begins.

        `on_step` is called at each look at the running job, and what it returns is shown instead of how far the job is. `ended`
        is called once, with whatever came of it.
        """
        if self.running:
            if latest:
                self._next = lambda: self.run(steps, name, on_step=on_step, ended=ended)
                self.cancel()
            return
        self._on_step, self._ended = on_step, ended
        job = Job(steps, name)
        if self.threaded:
            record_job(job)
        self._go(job, self._start if self.threaded else Job.run_here)

    def follow(
        self,
        job: Job[Any],
        *,
        on_step: Callable[[Job[Any]], str | None] = lambda _: None,
        ended: Callable[[Job[Any]], None] = lambda _: None,
    ) -> None:
        """Show a job that runs already, perhaps for others too: cancelling it stops it for all. Callbacks as in `run`."""
        if self.running:
            return
        self._on_step, self._ended = on_step, ended
        self._go(job, lambda _: None, is_own=False)

    def resume(self) -> None:
        """Take up the job that was cancelled or has failed: `steps` is called again."""
        if self.job is not None and not self.running:
            self._go(self.job.renew(), self._start)

    def cancel(self) -> None:
        """Stop after the current step."""
        if self.running and self.job is not None:
            if self.queue is not None and self.owns_job:
                self.queue.cancel(self.job)
            else:
                self.job.cancel()
            self.words.object = render_paragraph("Stopping after the current step …")

    def close(self) -> None:
        """The visitor has left: nobody waits for the job any more, and none begins."""
        self.left, self._next = True, None
        if self._poll is not None:
            self._poll.stop()
            self._poll = None
        if self.owns_job:
            self.cancel()

    def _start(self, job: Job[Any]) -> None:
        if self.queue is None:
            job.start()
        else:
            self.queue.add(job, owner=id(self.notices))

    def _go(self, job: Job[Any], start: Callable[[Job[Any]], Any], *, is_own: bool = True) -> None:
        if self.left:
            return
        self.job, self.running, self.peak, self.owns_job = job, True, measure_memory(), is_own
        if is_own:
            job.owner = id(self.notices)
        self._first_look = None
        # several jobs of a page may be stopped: the tooltip says which one this button stops
        self.stop.param.update(disabled=False, visible=True, description=f"Stop {job.name} after the current step")
        self.again.visible = False
        self.progress.param.update(value=0, visible=True)
        self.words.object = render_paragraph(f"{job.name.capitalize()} …", live=False)
        start(job)
        if self.threaded:
            self._poll = pn.state.add_periodic_callback(self._look_on_page, period=self.period)
        else:
            job.wait()
            self.look()

    def _look_on_page(self) -> None:
        """Look, unless a notebook's page has yet to be drawn; one that never says so is taken to be there after a while.

        The while begins with the first look, not with the job: a page is drawn after its cell, and on a busy machine a cell may
        build its component for longer than that. What is said earlier is lost, and later messages refer to it.
        """
        now = time.monotonic()
        self._first_look = now if self._first_look is None else self._first_look
        if self.page is None or self.page.there or now - self._first_look > DRAWN:
            self.notices.guard(self.look)

    @property
    def waits(self) -> bool:
        """Whether another job begins as soon as this one has stopped."""
        return self._next is not None

    def look(self) -> None:
        """Bring the screen up to date with the job."""
        job = self.job
        if job is None or not self.running:
            return
        running = job.status in (Status.WAITING, Status.RUNNING)  # read once and first: a job may end while it is being shown
        self.peak = max(self.peak, measure_memory())
        self.progress.value = round(100 * job.progress)
        waits, hears = job.status is Status.WAITING, isinstance(job.latest, Heard)
        message = None if hears else self._on_step(job)
        if running:
            if message is not None or job.progress or waits or hears:
                self.words.object = render_paragraph(
                    self._stand(job) if waits or hears or message is None else message, live=False
                )
            return
        self._end(job)

    def _stand(self, job: Job[Any]) -> str:
        if job.status is Status.WAITING and self.queue is not None:
            return f"{job.name.capitalize()} is waiting for {themes.format_count(self.queue.before(job), 'other job')}."
        if isinstance(latest := job.latest, Heard):
            return f"Reading the calibration text: {latest.tokens:,} of {latest.total:,} tokens."
        left = f", about {themes.format_duration(job.seconds_left)} left" if job.seconds_left is not None else ""
        return f"{job.name.capitalize()}: {job.progress:.0%} after {themes.format_duration(job.seconds)}{left}."

    def _end(self, job: Job[Any]) -> None:
        if self._poll is not None:
            self._poll.stop()
            self._poll = None
        self.running = False
        self.stop.disabled, self.stop.visible, self.progress.visible = True, False, False
        self.again.visible = job.status is not Status.DONE
        took = f"{themes.format_duration(job.seconds)}, memory at most {themes.format_megabytes(8 * self.peak)}"
        self.words.object = render_paragraph(f"{ENDED[job.status]}: {job.name}, {took}.")
        if job.error is not None:
            self.notices.report(job.error)
        self._ended(job)
        if self._next is not None:
            begin, self._next = self._next, None
            begin()

    def __panel__(self) -> pn.viewable.Viewable:
        return self.view
