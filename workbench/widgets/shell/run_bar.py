"""The model shown on the screen: the original, a stop of the slider or a quantization, what it is compared with, and its four key
figures with their differences."""

from collections.abc import Generator
from typing import Any

import panel as pn

from workbench.analysis.decisions.headline import Headline, Measuring, Stored
from workbench.jobs import Job, Status
from workbench.session.runs import ORIGINAL, Run
from workbench.views import theme as themes
from workbench.views.decisions import headline as views
from workbench.widgets.base.component import Component, choose_theme
from workbench.widgets.base.controls import PLAIN_MARGIN, build_action_button
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.markup import render_paragraph
from workbench.widgets.elements.chip_bar import ChipBar


class RunBar(Component):
    """Show one chip for each run, the figures of the chosen one and their differences from a second one.

    Each chip has the stored bits of its run. The second run is the original unless another chip is lit in the line below.

    A small model is measured as soon as a run has ended, a large one when it is asked for.

    Example:
        >>> import workbench as wb
        >>> list(wb.RunBar(wb.open_model("builtin")).chips.options)
        ['original · 16.00']
    """

    watches = ("results", "run")
    waits = False

    def build(self) -> pn.viewable.Viewable:
        """Chips above, figures below them, and the job that measures."""
        self.chips = ChipBar(label="Run", options={"": ORIGINAL}, value=ORIGINAL)
        self.beside = ChipBar(label="Compared with", options={"": ORIGINAL}, value=ORIGINAL, beside=True, styles={"flex": "1"})
        words = pn.pane.HTML("compared with", margin=(8, 0, 5, 10), styles={"color": choose_theme().muted})
        self.comparison = pn.FlexBox(words, self.beside, align_items="start", sizing_mode="stretch_width")
        self.chips.param.watch(self._chosen, "value")
        self.beside.param.watch(self._compared, "value")
        self.numbers = pn.pane.HTML("", sizing_mode="stretch_width")
        what = "Measure perplexity on the evaluation text and generation speed"
        self.measure = self.does(build_action_button("Measure", what, 100, margin=PLAIN_MARGIN), self._measure)
        self.jobs = JobPanel(self.notices, threaded=self.threaded, queue=self.session.shared.queue)
        self.measured_run: Run | None = None
        buttons = pn.Row(self.jobs.stop, self.jobs.again)
        self.measuring = pn.Row(buttons, self.jobs.words, sizing_mode="stretch_width", visible=False)
        if self.measures_alone and pn.state.curdoc is not None and pn.state.curdoc.session_context is not None:
            pn.state.onload(lambda: self.notices.guard(self._measure_new))
        return pn.Column(self.chips, self.comparison, self.numbers, self.measure, self.measuring, sizing_mode="stretch_width")

    @property
    def measures_alone(self) -> bool:
        """Whether a run is measured without being asked for: where that takes seconds."""
        return self.threaded and self.session.shared.is_small

    def refresh(self) -> None:
        """Chips of all runs and the figures of the one that is shown."""
        runs = self.session.runs
        options = {self._chip(label): label for label in runs.items}
        for chips, label in ((self.chips, runs.label), (self.beside, runs.reference.label)):
            if chips.options != options or chips.value != label:
                chips.param.update(options=options, value=label)
        # with a single run there is nothing to choose; the original is what others are compared with
        self.comparison.visible = runs.label != ORIGINAL and len(options) > 2
        self._show()
        if runs.label != ORIGINAL and self.measures_alone:
            self._measure_new()

    def _show(self) -> None:
        """The figures that there are."""
        runs = self.session.runs
        headline, current = runs.headline(), runs.current
        self.measure.visible = not (runs.is_measured(current) or self.jobs.running or self.measures_alone)
        if (figures := headline or runs.stored(current.label)) is not None:
            self.numbers.object = self._render_numbers(figures)
        elif current.stop is not None:
            self.numbers.object = render_paragraph(f"There is no model at {current.stop.bits:g} bits yet: press Build the stops.")

    def _render_numbers(self, figures: Stored) -> str:
        """The figures, with what is different from the run that is compared with."""
        runs = self.session.runs
        beside, ratio = runs.reference, runs.perplexity_ratio()
        figures_beside = runs.headline(beside) or runs.stored(beside.label)
        if beside is runs.current or figures_beside is None:
            return views.render_headline(figures, choose_theme())
        sentence: str | None
        if beside.label != ORIGINAL:
            sentence = views.describe_paired_ratio(ratio, beside.label)
        else:  # the ratio stands below the perplexity
            sentence = None if ratio is None else views.describe_insignificance(ratio)
        return views.render_headline(figures, choose_theme(), views.list_differences(figures, figures_beside, ratio), sentence)

    def _chip(self, label: str) -> str:
        """A run in two words: what it is, and its stored bits."""
        stored = self.session.runs.stored(label)
        return label if stored is None else f"{label} · {themes.format_bits(stored.bits_per_weight)}"

    def _chosen(self, event: Any) -> None:
        """Show another run, in all views."""
        if event.new in ("", self.session.runs.label):
            return
        self.notices.guard(lambda: self.session.show_run(event.new))
        self.live.announce("run", "results")

    def _compared(self, event: Any) -> None:
        """Compare with another run, in all views."""
        if event.new in ("", self.session.runs.reference.label):
            return
        self.notices.guard(lambda: self.session.runs.compare_with(event.new))
        self.live.announce("run", "results")

    def _measure_new(self) -> None:
        """Measure the run that is shown once."""
        runs = self.session.runs
        if not runs.is_measured(runs.current) and runs.current is not self.measured_run:
            self._measure()

    def _measure(self) -> None:
        run, prompt = self.session.runs.current, self.session.choice.prompt

        def steps() -> Generator[Measuring | None, None, Headline]:
            return self.session.runs.headline_steps(run, prompt)

        self.measured_run = run
        self.measuring.visible = True
        self.jobs.run(steps, "measuring this run", on_step=self._on_step, ended=self._ended, latest=True)

    def _on_step(self, job: Job[Any]) -> str | None:
        return None if job.latest is None else f"{job.latest.doing.capitalize()} …"

    def _ended(self, job: Job[Any]) -> None:
        self.measuring.visible = job.status is not Status.DONE
        self._show()
