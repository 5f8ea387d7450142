"""Figures of a matrix: computed at once for small matrices, and in the background for large ones."""

from collections.abc import Callable, Generator, Sequence
from typing import Any

import panel as pn

from workbench.jobs import Counted, Job, Status
from workbench.widgets.base.job_panel import PATIENCE, JobPanel
from workbench.widgets.base.notices import Notices

PERIOD = 40  # milliseconds between looks


class Study(pn.viewable.Viewer):
    """Works out what `body` shows, then draws it; meanwhile the page goes on, and a later wish replaces this one.

    What takes longer than a moment greys `body` and shows how far it is, with a way to cancel; a body with nothing in it yet
    is hidden, since its empty axes say nothing.
    """

    def __init__(self, body: pn.viewable.Viewable, notices: Notices, *, threaded: bool) -> None:
        super().__init__()
        self.body = body
        self.jobs = JobPanel(notices, threaded=threaded, period=PERIOD)
        self.jobs.view.visible = False
        self.wishes, self.is_drawn = 0, False
        self.view = pn.Column(self.jobs, body, sizing_mode="stretch_width")

    def run(self, computations: Sequence[Callable[[], Any]], draw: Callable[..., None], *, at_once: bool) -> None:
        """Run `computations`, then `draw` with their results; those of an earlier request are not drawn any more."""
        self.wishes += 1
        wish = self.wishes
        if at_once:
            self.jobs.cancel()
            self._show(busy=False)
            draw(*(find() for find in computations))
            self.is_drawn = True
            return

        def steps() -> Generator[Counted, None, list[Any]]:
            results = []
            for find in computations if wish == self.wishes else ():
                results.append(find())
                yield Counted(len(results), len(computations))
            return results

        def show_step(job: Job[Any]) -> None:
            if job.seconds > PATIENCE and wish == self.wishes:
                self._show(busy=True)

        def ended(job: Job[list[Any]]) -> None:
            if wish != self.wishes:
                return
            if job.status is Status.DONE:
                self._show(busy=False)
                draw(*job.result())
                self.is_drawn = True
            else:
                self.body.visible = self.jobs.view.visible = True  # it was stopped, or failed, and can be resumed

        self.jobs.run(steps, "reading the weights", on_step=show_step, ended=ended, latest=True)

    def _show(self, *, busy: bool) -> None:
        self.jobs.view.visible = busy
        self.body.visible = self.is_drawn or not busy
        self.body.styles = {**self.body.styles, "opacity": "0.45" if busy else "1"}

    def __panel__(self) -> pn.viewable.Viewable:
        return self.view
