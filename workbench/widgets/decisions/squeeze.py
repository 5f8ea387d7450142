"""Squeeze: one slider for the whole model from 16 to 0.7 stored bits, and the texts of the original and the squeezed model."""

from collections.abc import Generator
from typing import Any

import panel as pn

from workbench.analysis.decisions.squeeze import Squeeze, SqueezeStep, tabulate_stops
from workbench.analysis.decisions.stops import Stop
from workbench.analysis.predictions.generation import Writing, write_together
from workbench.jobs import Job, Status
from workbench.session.runs import ORIGINAL, Run
from workbench.views import theme as themes
from workbench.views.decisions import squeeze as views
from workbench.views.predictions import generation as texts
from workbench.widgets.base.component import Component, FigureFrame, choose_theme
from workbench.widgets.base.controls import PLAIN_MARGIN, build_action_button, scale_width
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.elements.slider import Slider
from workbench.widgets.elements.text_pages import TextPages
from workbench.widgets.predictions.why_here import WhyHere

WRITTEN_TOKENS = 60
PERIOD = 100  # milliseconds between looks at texts that are being written
WRITING_QUESTION = "What does the squeezed model write?"
INVITATION = "Drag Squeeze to the right, or quantize: what the smaller model writes appears here, each token tinted by its KL."


class SqueezeView(Component):
    """Move one model from 16 bits a weight to below one by a slider, and read what the original and the chosen model write.

    Every stop is a real packed model; one that is not built yet says so. `stop` is where the slider stands and `writing` the
    texts, as values.

    Example:
        >>> import workbench as wb
        >>> view = wb.SqueezeView(wb.open_model("builtin"))
        >>> view.stop.bits, view.stop.preset
        (16, 'none')
    """

    watches = ("choice", "results", "run")
    waits = False
    is_wide = is_presented = True

    def build(self) -> pn.viewable.Viewable:
        """The slider, what is being built below it, and the texts, which the explorer has above its views."""
        self.squeeze: Squeeze = self.session.shared.squeeze
        self.writing, self.written_prompt = Writing(), ""
        self.written_run: Run | None = None
        self.written_beside: Run | None = None
        self.texts = JobPanel(self.notices, threaded=self.threaded, period=PERIOD)
        self.texts.view.visible = False  # the texts themselves show how far they are
        self.slider = Slider(
            label="Squeeze",
            options=self._labels(),
            value=self._find_place(),
            sizing_mode="stretch_width",
            description="Stored bits per weight, from 16 down to below one",
        )
        self.go = build_action_button("Build the stops", "Quantize the model at each stop", 140, margin=PLAIN_MARGIN)
        what = "Open this stop's model in the views below, starting with its text"
        self.detail = build_action_button("Compare every token", what, 160, margin=PLAIN_MARGIN, main=False)
        self.all = pn.widgets.Toggle(label="All stops", value=False, variant="outline", styles=scale_width(100))
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        buttons = pn.Row(self.jobs.stop, self.jobs.again)
        status = pn.Column(self.jobs.progress, self.jobs.words, sizing_mode="stretch_width")
        self.building = pn.Row(buttons, status, sizing_mode="stretch_width", visible=False)
        self.pages, self.curve = TextPages(), FigureFrame()
        self.slider.param.watch(lambda _: self.notices.guard(self._moved), "value")
        self.go.on_click(lambda _: self.notices.guard(self.begin))
        self.detail.on_click(lambda _: self.notices.guard(self.open_text))
        self.all.param.watch(lambda _: self._stops(), "value")
        if self.threaded and pn.state.curdoc is not None and pn.state.curdoc.session_context is not None:
            pn.state.onload(lambda: self.notices.guard(self._opened))
        self.why_here = self.part(WhyHere)
        self.slider.styles = {"flex": "1 1 320px", "min-width": "200px"}
        head = pn.FlexBox(
            self.slider, self.go, self.why_here.go, self.detail, self.all, align_items="center", sizing_mode="stretch_width"
        )
        parts = [head, self.building, self.texts, self.pages, self.why_here, self.curve]
        return pn.Column(*parts, sizing_mode="stretch_width")

    def present(self, on: bool) -> None:
        """Slider and texts only; what builds the stops stays while there is something to build."""
        self.slider.follows_page_keys = on
        for part in (self.detail, self.why_here.go, self.why_here.view, self.all):
            part.visible = not on
        self.curve.view.visible = self.all.value and self.all.visible

    @property
    def stop(self) -> Stop:
        """Where the slider stands."""
        return self.squeeze.stops[int(self.slider.value)]

    def _find_place(self) -> int:
        """Where the slider stands at first: at the stop that the session shows."""
        stop = self.session.runs.current.stop
        return 0 if stop is None else self.squeeze.stops.index(stop)

    def refresh(self) -> None:
        """Marks on the slider; texts are written again when another run is shown or compared with, or the prompt changes."""
        self._stops()
        if self._is_written():
            return
        if self.written_run is None and self.session.runs.label == ORIGINAL:
            self.pages.say(WRITING_QUESTION, "Move the slider, or quantize: both models continue the prompt.")
        else:
            self.write()

    def _is_written(self) -> bool:
        """Whether the texts are those of the two runs and of the prompt."""
        runs, prompt = self.session.runs, self.session.choice.prompt
        return (runs.current, runs.reference, prompt) == (self.written_run, self.written_beside, self.written_prompt)

    def _opened(self) -> None:
        """A page that has just been opened shows what the model writes, where that takes a moment."""
        if self.session.shared.is_small:
            self.write()
        if self.session.shared.begins_alone:
            self.begin()

    def begin(self) -> None:
        """Build and measure what is missing, or look on while that is done for somebody else."""
        if self.squeeze.measured:
            self._advanced()
            return
        if self.threaded:
            self.jobs.follow(self.squeeze.start(), on_step=self._on_step, ended=self._ended)
        else:
            self.jobs.run(self.squeeze.steps, "building the stops", on_step=self._on_step, ended=self._ended)
        self.building.visible = True

    def open_text(self) -> None:
        """Take this stop's model into the session, as if it had been quantized on the bench, and go to the texts."""
        if self.squeeze.find(self.stop) is None:
            self.pages.say(WRITING_QUESTION, self._missing(self.stop))
            return
        self.session.take(self.squeeze.quantized_at(self.stop))
        self.live.choose(lambda: self.session.use(self.stop.recipe))
        self.live.announce("results")
        self.live.front = "Text"

    def write(self) -> None:
        """Let the run that is shown and the one beside it continue the prompt; whatever is being written for others ends."""
        runs, prompt, self.writing = self.session.runs, self.session.choice.prompt, Writing()
        run, beside = runs.current, runs.reference
        self.written_run, self.written_beside, self.written_prompt = run, beside, prompt
        if missing := self._missing(run.stop):
            self.texts.cancel()
            self.pages.clear(WRITING_QUESTION, missing)
            return
        self.pages.wait(WRITING_QUESTION, f"Writing with {run.label} …")

        def steps() -> Generator[Writing, None, None]:
            yield from write_together(runs.model(beside), runs.model(run), prompt, WRITTEN_TOKENS)

        def draw(job: Job[Any]) -> None:
            if (self.written_run, self.written_beside, self.written_prompt) == (run, beside, prompt):
                self._draw(job.latest)

        def ended(job: Job[Any]) -> None:
            draw(job)
            if job.error is not None:
                self._advanced()

        self.texts.run(steps, "continuing the prompt", on_step=draw, ended=ended, latest=True)

    def _moved(self) -> None:
        """Show the stop, in the figures and in the texts; the first one is the original."""
        if self.stop.is_original:
            self.session.show_run(ORIGINAL)
        else:
            self.session.show_stop(self.stop)
        self.live.announce("run")

    def _draw(self, writing: Writing | None) -> None:
        """Show what is written by now."""
        if writing is None or writing is self.writing:
            return
        self.writing = writing
        beside = ORIGINAL if self.written_beside is None else self.written_beside.label
        shown = texts.build_text_comparison(
            self.written_prompt, writing, names=texts.name_texts(beside, self._written_label()), theme=choose_theme()
        )
        if self.written_run == self.written_beside:
            self.pages.draw_one(WRITING_QUESTION, shown, beside, INVITATION)
            return
        page = texts.Comparison(WRITING_QUESTION, shown.answer, shown.original, shown.quantized, shown.table)
        self.pages.draw(page, self._written_label(), beside)

    def _written_label(self) -> str:
        """What stands above the text of the run that is shown: a stop's bits, else the run's label."""
        run = self.written_run
        if run is None or run.stop is None:
            return "" if run is None else run.label
        return self._labels()[self.squeeze.stops.index(run.stop)]

    def _on_step(self, job: Job[Any]) -> str | None:
        """What is being built; a stop that is new is shown at once."""
        if self._labels() != self.slider.options:
            self._advanced()
        step: SqueezeStep | None = job.latest
        if step is None:
            return None
        left = f", about {themes.format_duration(job.seconds_left)} left" if job.seconds_left is not None else ""
        if self.squeeze.complete:
            return (
                f"All stops are ready. Their speed on this machine is being measured, now that at {step.stop.bits:g} bits{left}."
            )
        ready = f"{len(self.squeeze.built_stops())} of {len(self.squeeze.stops)} stops are built"
        return f"{ready}; at {step.stop.bits:g} bits: {step.doing}{left}."

    def _ended(self, job: Job[Any]) -> None:
        self.building.visible = job.status is not Status.DONE
        self._advanced()

    def _advanced(self) -> None:
        """Stops have become ready, or one was lost."""
        self._stops()
        self.live.announce("run")
        if not any(self.writing.sides) and not self.texts.running:
            self.write()

    def _labels(self) -> list[str]:
        """What the slider says at each stop."""
        stored = [self.session.runs.stored(ORIGINAL) if s.is_original else self.squeeze.find(s) for s in self.squeeze.stops]
        return [
            f"{themes.format_bits(facts.bits_per_weight)} stored bits" if facts else f"{stop.bits:g} bits, not built yet"
            for facts, stop in zip(stored, self.squeeze.stops, strict=True)
        ]

    def _stops(self) -> None:
        """The slider's words and the figure of all stops."""
        labels = self._labels()
        if labels != self.slider.options:
            self.slider.options = labels
        self.go.visible = not self.squeeze.complete
        self.go.disabled = self.jobs.running
        self.detail.disabled = self.squeeze.find(self.stop) is None
        built = self.squeeze.built_stops()
        self.curve.view.visible = self.all.value and self.all.visible
        if self.all.value and built:
            self.curve.draw(views.draw_squeeze_curve(tabulate_stops(built), self.stop.preset, theme=choose_theme()))
        elif self.all.value:
            self.curve.say("How far can the model be squeezed?", "No stop is built yet: press Build the stops.")

    def _missing(self, stop: Stop | None) -> str:
        """Why there is no model at a stop, and what to do; empty where there is one."""
        if stop is None or self.squeeze.find(stop) is not None:
            return ""
        wait = "it is being built" if self.jobs.running else "press Build the stops"
        return f"There is no model at {stop.bits:g} bits yet: {wait}."
