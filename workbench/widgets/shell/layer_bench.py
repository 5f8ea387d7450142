"""The bench: choose a method, change its settings, quantize a layer or the whole model."""

import html
import io
from collections.abc import Callable, Generator
from typing import Any

import panel as pn

from workbench import presets
from workbench.errors import WorkbenchError
from workbench.jobs import Job
from workbench.quantized import QuantizedLayer
from workbench.quantizers.contract import Snapshot
from workbench.quantizers.learning.descent import LearningStep
from workbench.quantizers.runs.progress import LayerProgress
from workbench.recipe import Recipe
from workbench.views import theme as themes
from workbench.widgets.base import setting_fields
from workbench.widgets.base.component import Component
from workbench.widgets.base.controls import PLAIN_MARGIN, build_action_button, build_folded_card
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.markup import render_code, render_paragraph
from workbench.widgets.shell.live_preview import LivePreview
from workbench.widgets.shell.recipe_form import RecipeForm
from workbench.widgets.shell.recipe_gallery import RecipeGallery


class LayerBench(Component):
    """Set the recipe on the bench by a form, and run it on a layer or on the model.

    `recipe`, `result` and `code` are what the form stands for, as values.

    Example:
        >>> import workbench as wb
        >>> bench = wb.LayerBench(wb.open_model("builtin"), "model.layers.0.mlp.down_proj")
        >>> bench.recipe.code(), bench.result is None
        ("wb.recipe('rtn')", True)
    """

    waits = False

    @property
    def recipe(self) -> Recipe:
        """The recipe that the form stands for."""
        return self.session.recipe

    @property
    def result(self) -> QuantizedLayer | None:
        """What it made of the selected layer, or None."""
        return self.session.result

    @property
    def code(self) -> str:
        """Python that does the same."""
        return self.session.code()

    def build(self) -> pn.viewable.Viewable:
        """The buttons and what they made above, where they are seen on a low screen; the gallery and the form below."""
        self.headline = pn.pane.HTML("", sizing_mode="stretch_width")
        self.gallery = self.part(RecipeGallery)
        self.form = RecipeForm(self._changed)
        self.problem = pn.pane.Alert("", alert_type="warning", visible=False, sizing_mode="stretch_width")
        self.note, self.parts = pn.pane.HTML("", sizing_mode="stretch_width"), pn.pane.HTML("", sizing_mode="stretch_width")
        self.outcome = pn.pane.HTML("", sizing_mode="stretch_width")
        self.one = self.does(
            build_action_button("Quantize this layer", "Run this recipe on the selected layer", None, margin=PLAIN_MARGIN),
            self._quantize_layer,
        )
        self.all = self.does(
            build_action_button(
                "Quantize the whole model", "Run this recipe on every layer", None, margin=PLAIN_MARGIN, main=False
            ),
            self._quantize_model,
        )
        self.jobs = JobPanel(self.notices, threaded=self.threaded, queue=self.session.shared.queue)
        self.jobs.param.watch(lambda _: self._free(), "running")
        self.jobs.view.visible = False
        self.python = pn.pane.HTML("", sizing_mode="stretch_width")
        self.preview = self.part(LivePreview)
        self.export = pn.widgets.FileDownload(
            callback=lambda: io.BytesIO(self.recipe.to_json().encode()),
            filename="recipe.json",
            label="Export the recipe",
            sizing_mode="stretch_width",
        )
        about = {"About this preset": self.note, "Parts": self.parts, "The same in Python": self.python}
        titled = [part for title, pane in about.items() for part in (pn.pane.HTML(f"<b>{html.escape(title)}</b>"), pane)]
        more = pn.Column(*titled, self.export, sizing_mode="stretch_width")
        return pn.Column(
            self.headline,
            self.problem,
            self.one,
            self.all,
            self.jobs,
            self.outcome,
            self.preview,
            self.gallery,
            self.form,
            build_folded_card("About this recipe", more),
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """The form, the parts and the figures of the recipe in the session."""
        recipe, result = self.session.recipe, self.session.result
        self.headline.object = render_headline(recipe)
        self.form.fill(recipe)
        self._explain(recipe)
        self.parts.object = render_pairs_table(setting_fields.list_recipe_parts(recipe))
        self.python.object = render_code(self.code)
        if recipe.name in presets.list_presets():
            preset = presets.find(recipe.name)
            self.note.object = render_paragraph(preset.source, live=False) + render_paragraph(preset.note, live=False)
        else:
            self.note.object = "<p>A custom combination of parts, which may be a new method.</p>"
        preview = self.session.preview
        is_result = result is not None and (preview is None or result is not preview.result)
        self.outcome.object = (
            _render_result(result)
            if result is not None and is_result
            else render_paragraph("This layer is not quantized yet.", live=False)
        )

    def _changed(self) -> None:
        """Put what the form says on the bench, or say what is wrong with it; another preset comes to the bench in any case."""
        try:
            recipe = self.form.recipe()
            if recipe.name == self.recipe.name:
                self.session.check(recipe)
        except WorkbenchError as error:
            self._say(str(error))
            return
        self._say("")
        self.live.choose(lambda: self.session.use(recipe))

    def _explain(self, recipe: Recipe) -> None:
        """Why the recipe on the bench does not fit this layer, if it does not."""
        try:
            self.session.check(recipe)
        except WorkbenchError as error:
            self._say(str(error))
        else:
            self._say("")

    def _say(self, problem: str) -> None:
        self.problem.param.update(object=html.escape(problem), visible=bool(problem))
        self._free()

    def _free(self) -> None:
        """Nothing is quantized while a job runs, or with a setting that does not fit."""
        self.one.disabled = self.all.disabled = self.jobs.running or self.problem.visible

    def _quantize_layer(self) -> None:
        self._run(self.session.quantize_steps, "this layer")

    def _quantize_model(self) -> None:
        self._run(self.session.quantize_model_steps, "the whole model")

    def _run(self, steps: Callable[[], Generator[Any, None, Any]], what: str) -> None:
        self.jobs.view.visible = True
        self.jobs.run(steps, f"quantizing {what}", on_step=self._on_step, ended=lambda _: self._ended())

    def _on_step(self, job: Job[Any]) -> str | None:
        self.live.announce("steps")
        if isinstance(job.latest, LayerProgress) and (stage := job.latest.stage) is not None:
            return f"{str(stage)[0].upper()}{str(stage)[1:]}."
        learning = find_learning_step(job.latest)
        if learning is not None and not job.progress:
            return f"Learning the transform: step {learning.step} of at most {learning.steps}."
        first = job.latest is None and not self.session.shared.is_calibrated
        return "Running calibration first …" if first else None

    def _ended(self) -> None:
        self.live.announce("results")


def render_headline(recipe: Recipe) -> str:
    """What is on the bench in one line: the method, its bits, and the settings that are not its own."""
    title, changed = "composed freely", dict(recipe.settings)
    if recipe.name in presets.list_presets():
        preset = presets.find(recipe.name)
        title, bits = preset.title, changed.pop("bits", getattr(preset(), "bits", None))
        changed = ({} if bits is None else {"bits": bits}) | changed
    settings = html.escape(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in changed.items()))
    small = f" <small style='font-weight:normal'>{settings}</small>"
    return f"<h2 style='font-size:1.15rem;margin:0' aria-live='polite'>Bench: {html.escape(title)}{small}</h2>"


def find_learning_step(latest: Snapshot | LayerProgress | None) -> LearningStep | None:
    """The step of a transform's learning that a job is at, if it is at one."""
    snapshot = latest.snapshot if isinstance(latest, LayerProgress) else latest
    return None if snapshot is None else snapshot.detail.get("step")


def _render_result(result: QuantizedLayer) -> str:
    """Stored bits large, nominal small beside them, and the errors."""
    output_loss = "" if result.output_error is None else f", output error {themes.format_error(result.output_error)}"
    return (
        "<p aria-live='polite' style='margin:4px 0'>"
        f"<b style='font-size:1.3rem'>{themes.format_bits(result.bits_per_weight)}</b> stored bits "
        f"<small>({themes.format_bits(result.nominal_bits)} nominal)</small><br>"
        f"weight error {themes.format_error(result.relative_error)}{output_loss}</p>"
    )


def render_pairs_table(pairs: list[tuple[str, str]]) -> str:
    """A two-column table."""
    head = "<th style='text-align:left;vertical-align:top;padding-right:8px'>"
    lines = (f"<tr>{head}{html.escape(a)}</th><td>{html.escape(b)}</td></tr>" for a, b in pairs)
    return f"<table style='font-size:0.85rem'>{''.join(lines)}</table>"
