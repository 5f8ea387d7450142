"""What if the model were calibrated on other text? Sliders mix the sources; errors, channels and spectrum of the layer follow."""

from collections.abc import Generator
from typing import Any

import pandas as pd
import panel as pn

from workbench.analysis.decisions.study_time import count_weights, estimate_reading_seconds
from workbench.analysis.method import calibration_mixture
from workbench.errors import WorkbenchError
from workbench.jobs import Job, Status
from workbench.models.text import SEPARATOR, Text
from workbench.store import Store
from workbench.views import theme as themes
from workbench.views.method import calibration_mixture as views
from workbench.widgets.base.component import Component, FigureFrame
from workbench.widgets.base.component import choose_theme as colours
from workbench.widgets.base.controls import build_action_button
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.elements.slider import Slider

SLIDER_MAX = 100  # of a slider


class CalibrationView(Component):
    """Mix calibration texts by sliders and see what that does to the selected layer under the recipe on the bench.

    While a mixture is measured the sliders may move on: the latest position wins. `weights` is the mixture as a value.

    Example:
        >>> import workbench as wb
        >>> view = wb.CalibrationView(wb.open_model("builtin"))
        >>> view.weights["calibration"], view.weights["evaluation"]
        (100.0, 0.0)
    """

    watches = ("choice",)

    def build(self) -> pn.viewable.Viewable:
        """Sliders and buttons beside each other, figures below."""
        self.texts = calibration_mixture.read_default_texts()
        self.sources: dict[str, calibration_mixture.SourceStats] = {}
        self.source_errors: dict[Any, dict[str, float]] = {}
        self.last_request: Any = None
        self.sliders: dict[str, Slider] = {}
        self.box = pn.FlexBox(sizing_mode="stretch_width")
        self.tokens = pn.widgets.IntInput(
            label="Tokens per half", value=calibration_mixture.TOKENS_PER_TEXT, start=64, end=100_000, step=512, width=130,
            description="Each text has one half for calibration and one held out",
        )  # fmt: skip
        self.go = build_action_button("Read the texts", "Compute the second moments of every text", 150)
        self.rank = build_action_button("Rank documents", "Leave each document of the selected text out once", 150)
        self.which = pn.widgets.Select(label="Text", width=260, description="Text whose documents are ranked")
        self.file = pn.widgets.FileInput(
            label="Add your own text",
            accept=".txt",
            width=300,
            description="UTF-8 text file; <|endoftext|> separates documents",
        )
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        self.errors, self.channels, self.spectrum, self.documents = (FigureFrame() for _ in range(4))
        self.go.on_click(lambda _: self.notices.guard(self.read))
        self.rank.on_click(lambda _: self.notices.guard(self.measure_documents))
        self.file.param.watch(lambda _: self.notices.guard(self.add), "value")
        self.jobs.param.watch(lambda event: self._busy(event.new), "running")
        self._fill()
        note = "<p style='margin:2px 0'>The mixture: each slider sets the share of one text in the calibration tokens.</p>"
        return pn.Column(
            pn.pane.HTML(note),
            self.box,
            pn.FlexBox(self.tokens, self.go, self.file),
            self.jobs,
            self.errors,
            self.channels,
            self.spectrum,
            pn.FlexBox(self.which, self.rank),
            self.documents,
            sizing_mode="stretch_width",
        )

    @property
    def weights(self) -> dict[str, float]:
        """Each source's weight, as its slider stands."""
        return {name: float(slider.value or 0) for name, slider in self.sliders.items()}

    def _fill(self) -> None:
        """A slider for each source; the first alone at the beginning."""
        for text in self.texts:
            if text.name not in self.sliders:
                slider = Slider(
                    label=text.name,
                    value=0 if self.sliders else SLIDER_MAX,
                    end=SLIDER_MAX,
                    step=5,
                    width=260,
                    description="Its share of the calibration tokens",
                )
                slider.param.watch(lambda _: self.notices.guard(self.mix), "value")
                self.sliders[text.name] = slider
        self.box[:] = list(self.sliders.values())
        self.which.param.update(options=list(self.sliders), value=self.which.value or self.texts[0].name)

    def add(self) -> None:
        """Take up a visitor's text."""
        if self.file.value is None:
            return
        try:
            content = self.file.value.decode()
        except UnicodeDecodeError:
            raise WorkbenchError(f"{self.file.filename} is not UTF-8 text; save it as UTF-8.") from None
        parts = tuple(part.strip() for part in content.split(SEPARATOR) if part.strip())
        self.texts.append(Text(self.file.filename or "text", parts))
        self.sources = {}
        self._fill()
        self.refresh()

    def refresh(self) -> None:
        """Figures of the selected layer and the recipe on the bench."""
        self.last_request = None
        if not self.sources:
            for frame, question in (
                (self.errors, views.ERRORS_QUESTION),
                (self.channels, views.CHANNELS),
                (self.spectrum, views.SPECTRUM),
            ):
                frame.say(question, self._describe_cost())
        else:
            self.mix()
        self.documents.say(views.INFLUENCE, "Choose a text and press Rank documents: each is left out once.")

    def begin_default(self) -> None:
        """Read the texts that are there at first."""
        self.read()

    def _describe_cost(self) -> str:
        """What reading the texts takes, for who has to decide."""
        tokens = 2 * len(self.texts) * int(self.tokens.value or calibration_mixture.TOKENS_PER_TEXT)
        seconds = estimate_reading_seconds(count_weights(self.session.model), tokens)
        return (
            f"Press Read the texts. Each is read once, {themes.format_estimate(seconds)} on this machine; after that, any "
            "mixture is computed from the stored statistics."
        )

    def read(self) -> None:
        """Read every text once, both halves."""
        tokens, texts = int(self.tokens.value or calibration_mixture.TOKENS_PER_TEXT), list(self.texts)

        def steps() -> Generator[calibration_mixture.Progress, None, dict[str, calibration_mixture.SourceStats]]:
            return (yield from calibration_mixture.read_sources_steps(self.session.model, texts, tokens=tokens, store=Store()))

        self.jobs.run(steps, "reading the texts", ended=self._were_read)

    def _were_read(self, job: Job[Any]) -> None:
        if job.status is Status.DONE:
            self.sources, self.source_errors = job.result(), {}
            self.refresh()

    def mix(self) -> None:
        """Measure the mixture as the sliders stand, unless that is under way; whoever moved last is shown."""
        if not self.sources or self.jobs.running:
            return
        layer, recipe, weights = self.session.layer, self.session.recipe, self.weights
        request = (layer, str(recipe.to_dict()), tuple(weights.items()))
        if request == self.last_request:
            return
        calibration_mixture.compute_shares(weights, self.sources)
        model, sources = self.session.model, self.sources

        def steps() -> Generator[calibration_mixture.Progress, None, tuple[pd.DataFrame, ...]]:
            yield calibration_mixture.Progress(0.0)
            if request[:2] not in self.source_errors:
                self.source_errors[request[:2]] = calibration_mixture.measure_source_errors(model, sources, layer, recipe)
            yield calibration_mixture.Progress(0.6)
            errors = calibration_mixture.tabulate_mixture_errors(
                model, sources, weights, layer, recipe, self.source_errors[request[:2]]
            )
            return (
                errors,
                calibration_mixture.tabulate_overlaps(model, sources, weights, layer),
                calibration_mixture.tabulate_spectra(sources, weights, layer),
            )

        self.last_request = request
        self.jobs.run(steps, "adding up the mixture", ended=self._mixed)

    def _mixed(self, job: Job[Any]) -> None:
        if job.status is Status.DONE:
            errors, channels, spectrum = job.result()
            self.errors.draw(views.draw_mixture_errors(errors, theme=colours()))
            self.channels.draw(views.draw_channel_overlaps(channels, theme=colours()))
            self.spectrum.draw(views.draw_input_spectra(spectrum, theme=colours()))
            self.mix()  # a slider may have moved meanwhile

    def measure_documents(self) -> None:
        """Leave each document of the chosen text out once."""
        text = next(text for text in self.texts if text.name == self.which.value)
        model, layer, recipe, tokens = (
            self.session.model,
            self.session.layer,
            self.session.recipe,
            int(self.tokens.value or calibration_mixture.TOKENS_PER_TEXT),
        )

        def steps() -> Generator[calibration_mixture.Progress, None, pd.DataFrame]:
            return (yield from calibration_mixture.measure_influence_steps(model, text, layer, recipe, tokens=tokens))

        self.jobs.run(steps, "ranking documents", ended=self._ranked)

    def _ranked(self, job: Job[Any]) -> None:
        if job.status is Status.DONE:
            self.documents.draw(views.draw_document_influence(job.result(), theme=colours()))

    def _busy(self, running: bool) -> None:
        self.go.disabled = self.rank.disabled = running
