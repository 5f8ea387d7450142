"""A preview of the recipe on the selected layer, computed while settings change; the latest setting wins."""

from typing import Any

import panel as pn

from workbench.errors import WorkbenchError
from workbench.jobs import Job, Status
from workbench.session import Preview
from workbench.views import theme as themes
from workbench.widgets.base.component import Component, render_chosen_css
from workbench.widgets.base.job_panel import PATIENCE, JobPanel

PERIOD = 40  # milliseconds between looks


class LivePreview(Component):
    """Stored bits and error of the recipe on the bench, on the whole layer or some rows of a large one.

    Where the whole layer is small, all figures follow; of a large one the histogram does, from these rows. The last preview
    stays, greyed, until the new one is there.
    """

    watches = ("choice",)
    waits = False

    def build(self) -> pn.viewable.Viewable:
        """The switch, the figures, and while it computes a word and a way out."""
        self.on = pn.widgets.Toggle(
            label="Live preview on this layer",
            value=self.threaded,
            variant="outline",
            sizing_mode="stretch_width",
            stylesheets=[render_chosen_css()],
        )
        self.shown = pn.pane.HTML("", sizing_mode="stretch_width")
        self.jobs = JobPanel(self.notices, threaded=self.threaded, period=PERIOD)
        self.jobs.progress.visible = False
        self.on.param.watch(lambda _: self.notices.guard(self.refresh), "value")
        self.jobs.view.visible = False
        return pn.Column(self.on, self.shown, self.jobs, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """Compute a preview of what is on the bench, if it fits and is not known."""
        session = self.session
        self.live.previews = self.on.value and session.can_preview
        if not self.on.value:
            self._leave("")
            return
        try:
            session.check(session.recipe)
        except WorkbenchError:
            self._leave("")  # the bench says why
            return
        if session.result is not None or session.preview is not None:
            self._leave(_describe_preview(session.preview))
        elif not self.live.previews:
            self._leave("Previews start after calibration: press Quantize this layer.")
        else:
            self.shown.styles = {"opacity": "0.45"}
            self.jobs.run(session.preview_steps, "preview", on_step=self._on_step, ended=self._ended, latest=True)

    def _on_step(self, job: Job[Any]) -> None:
        """A preview of a moment comes without a word: what is shown and hidden again moves the page."""
        self.jobs.view.visible = job.seconds > PATIENCE

    def _ended(self, job: Job[Any]) -> None:
        if job.status is Status.CANCELLED and self.jobs.waits:
            return  # a later setting is waiting for its turn
        waiting = self.live.waiting
        self._leave(_describe_preview(self.session.preview) if job.status is Status.DONE else "The preview was stopped.")
        if not waiting:
            self.live.announce("results")

    def _leave(self, words: str) -> None:
        """Nothing is being computed any more; what waited for it is told."""
        self.jobs.view.visible = False
        self.shown.param.update(object=f"<p aria-live='polite' style='margin:2px 0'>{words}</p>", styles={"opacity": "1"})
        if self.live.waiting:
            self.live.waiting = False
            self.live.announce("results")


def _describe_preview(preview: Preview | None) -> str:
    """The figures of a preview in a sentence; those of a result stand elsewhere."""
    if preview is None:
        return ""
    result = preview.result
    error = result.relative_error if result.output_error is None else result.output_error
    what = "weight error" if result.output_error is None else "output error"
    summary = f"Preview: <b>{themes.format_bits(result.bits_per_weight)}</b> stored bits, {what} {themes.format_error(error)}"
    if preview.is_whole:
        return f"{summary} (the whole layer)."
    rows = f"{len(preview.rows)} of {preview.row_count:,} rows, evenly spaced; shared items are not counted"
    if preview.interval is None:
        return f"{summary} ({rows})."
    low, high = map(themes.format_error, preview.interval)
    return f"{summary} ({rows}; weight error of all rows {low} to {high}, 95 % interval)."
