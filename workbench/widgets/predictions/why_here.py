"""Why do the texts part here? The layers to blame for the first token that differs, framed on the layer map."""

from collections.abc import Generator
from typing import Any

import panel as pn

from workbench.jobs import Job, Status
from workbench.session.blame import Blame, drop_blame, find_blame_steps, mark_guilty
from workbench.session.runs import ORIGINAL, Run
from workbench.views.predictions import fork as views
from workbench.widgets.base.component import Component
from workbench.widgets.base.controls import PLAIN_MARGIN, build_action_button
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.markup import render_paragraph

LOOK_AHEAD = 60  # tokens of the original's text in which the fork is looked for


class WhyHere(Component):
    """A button that looks for the layers to blame for the fork of the run on show from the original; `blame` is it as a value."""

    watches = ("choice", "results", "run")
    waits = False

    def build(self) -> pn.viewable.Viewable:
        """The job and the answer; the button is for whoever has a place for it beside the texts."""
        self.blame: Blame | None = None
        self.blamed: tuple[Run, str] | None = None
        what = "Restore layers until the first differing token is the original's again, and frame them on the map"
        self.go = self.does(build_action_button("Why here?", what, 110, margin=PLAIN_MARGIN, main=False), self.find)
        self.jobs = JobPanel(self.notices, threaded=self.threaded, queue=self.session.shared.queue)
        self.jobs.view.visible = False
        self.jobs.param.watch(lambda _: self._free(), "running")
        self.answer = pn.pane.HTML("", sizing_mode="stretch_width")
        return pn.Column(self.jobs, self.answer, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """What was found holds for one run and prompt only."""
        if self.blamed is not None and self.blamed != self._subject():
            self.blame, self.blamed, self.answer.object = None, None, ""
            drop_blame(self.session)
        self._free()

    def _subject(self) -> tuple[Run, str]:
        """What is asked about: the run on show, and the prompt."""
        return self.session.runs.current, self.session.choice.prompt

    def _free(self) -> None:
        run = self.session.runs.current
        is_built = run.stop is None or (not run.stop.is_original and self.session.runs.stored(run.label) is not None)
        self.go.disabled = self.jobs.running or run.label == ORIGINAL or not is_built

    def find(self) -> None:
        """Look for the fork and the layers to blame for it."""
        subject, model, squeeze = self._subject(), self.session.model, self.session.shared.squeeze
        run, prompt = subject
        self.jobs.view.visible = True

        def steps() -> Generator[Any, None, Blame]:
            quantized = run.quantized if run.stop is None else squeeze.quantized_at(run.stop)
            assert quantized is not None
            return (yield from find_blame_steps(model, quantized, prompt, LOOK_AHEAD))

        self.jobs.run(steps, "looking for the layers to blame", ended=lambda job: self._ended(job, subject))

    def _ended(self, job: Job[Any], subject: tuple[Run, str]) -> None:
        self.jobs.view.visible = job.status is not Status.DONE
        if job.status is not Status.DONE or subject != self._subject():
            return
        blame: Blame = job.result()
        self.blame, self.blamed = blame, subject
        self.answer.object = render_paragraph(views.describe_guilty_layers(blame.finder.table, blame.finder.fork, blame.guilt))
        self.live.choose(lambda: mark_guilty(self.session, blame))
        self.live.announce("results")
