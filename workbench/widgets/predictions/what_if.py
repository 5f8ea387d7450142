"""What-if: how the recipe on the bench changes the model's predictions, and which layers cause the error."""

from collections.abc import Generator
from typing import Any, ClassVar

import panel as pn

from workbench.analysis.decisions.error_budget import error_budget_steps
from workbench.analysis.predictions.divergence import Divergence
from workbench.analysis.predictions.sensitivity import Measured
from workbench.jobs import Job
from workbench.quantized import QuantizedLayer
from workbench.views.decisions import error_budget as views
from workbench.views.predictions.token_kl import build_tinted_text
from workbench.widgets.base.component import Component, FigureFrame, build_data_table, choose_theme, render_chosen_css
from workbench.widgets.base.controls import BESIDE
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.markup import render_heading

EFFECT_QUESTION = "How does quantizing this layer change the model?"
WHENCE = "Which layers cause the error?"
HURT = "Which layers amplify each other's error?"


class WhatIfView(Component):
    """Show at once what quantizing the selected layer does to the predictions, and the error budget of all quantized layers.

    Example:
        >>> import workbench as wb
        >>> result = wb.quantize(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", wb.recipe("rtn", bits=2))
        >>> _, effect = wb.WhatIfView(result, threaded=False).layer.effect
        >>> effect.tokens, effect.kl > 0
        (2048, True)
    """

    watches = ()  # the two parts look after themselves

    def build(self) -> pn.viewable.Viewable:
        """The selected layer above, the whole model below."""
        self.layer, self.budget = self.part(LayerEffect), self.part(BudgetOfErrors)
        return pn.Column(self.layer, pn.pane.HTML("<hr>", sizing_mode="stretch_width"), self.budget, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """Nothing of its own."""

    def look(self, visible: bool) -> None:
        """Both parts come to the front together."""
        super().look(visible)
        for part in (self.layer, self.budget):
            part.look(visible)


class LayerEffect(Component):
    """KL, perplexity and changed tokens with the selected layer quantized by the recipe on the bench; follows the bench."""

    def build(self) -> pn.viewable.Viewable:
        """A switch, the sentence, and the text."""
        self.follow = pn.widgets.Toggle(label="Follow the bench", value=True, width=150, stylesheets=[render_chosen_css()])
        self.follow.param.watch(lambda _: self.changed(), "value")
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        self.sentence, self.text = (pn.pane.HTML("", sizing_mode="stretch_width") for _ in range(2))
        self.as_table = pn.widgets.Toggle(label="Show as table", value=False, variant="outline", width=130)
        self.as_table.param.watch(lambda _: self._show(), "value")
        self.table = pn.Column(sizing_mode="stretch_width")
        self.effect: tuple[QuantizedLayer, Divergence] | None = None
        self.floor = 0.0
        explanation = "Quantize the selected layer again whenever the layer or the recipe changes."
        top = pn.Row(self.follow, pn.pane.HTML(explanation, margin=(10, 0)))
        return pn.Column(top, self.sentence, self.text, self.as_table, self.table, self.jobs, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """The effect of this choice: what is known, or a run to find out."""
        result = self.session.result
        if self.effect is not None and result is self.effect[0]:
            self._show()
        elif result is not None or self.follow.value:
            self._measure()
        else:
            self._say("This layer is not quantized yet: press Quantize this layer, or switch on Follow the bench.")

    def _measure(self) -> None:
        """Quantize, unless that is done, and replay; a run for an older choice is stopped, and the newest one is run after it."""
        if self.jobs.running:
            self.jobs.cancel()
            return
        choice = self.session.choice

        def steps() -> Generator[Any, None, tuple[Any, ...]]:
            self.session.check(choice.recipe)
            result = self.session.result
            if result is None:
                result = yield from self.session.quantize_steps()
            yield None
            return choice, result, self.session.effect(result), self.session.shared.replay().noise.kl

        self._say("Running the layers after the changed one …")
        self.jobs.run(steps, "what-if", ended=self._ended)

    def _ended(self, job: Job[Any]) -> None:
        now = self.session.choice
        if job.error is None and job.status == "done":
            choice, result, effect, self.floor = job.result()
            if (choice.layer, choice.recipe) == (now.layer, now.recipe):
                self.effect = (result, effect)
                self.live.announce("results")
                self._show()
                return
        if job.error is not None:
            self._say("The recipe on the bench does not fit this layer; see the notice above.")
        elif self.follow.value:
            self.changed()

    def _say(self, sentence: str) -> None:
        self.sentence.object = render_heading(EFFECT_QUESTION, sentence)
        self.text.object, self.as_table.visible = "", False
        self.table[:] = []

    def _show(self) -> None:
        if self.effect is None:
            return
        _, effect = self.effect
        shown = build_tinted_text(
            effect.table(self.session.model.language_model().settled), effect, self.floor, theme=choose_theme()
        )
        self.sentence.object = render_heading(shown.question, shown.answer)
        self.as_table.visible = True
        self.text.object = "" if self.as_table.value else shown.text
        self.table[:] = [build_data_table(shown.table)] if self.as_table.value else []


class BudgetOfErrors(Component):
    """Waterfall and interaction map of all layers that are quantized, measured by a job."""

    watches: ClassVar[tuple[str, ...]] = ("results",)

    def build(self) -> pn.viewable.Viewable:
        """A button, then the two figures."""
        self.top = pn.widgets.IntInput(
            label="Layers in pairs",
            value=5,
            start=2,
            end=12,
            width=110,
            description="Number of the worst layers to measure in pairs",
        )
        self.go = pn.widgets.Button(
            label="Measure the error budget",
            width=210,
            margin=BESIDE,
            description="Measure every quantized layer alone, together with all before it, and the worst ones in pairs",
        )
        self.go.on_click(lambda _: self.notices.guard(self.measure))
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        self.waterfall, self.interactions = FigureFrame(), FigureFrame()
        return pn.Column(pn.FlexBox(self.top, self.go), self.jobs, self.waterfall, self.interactions, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """How many layers there are to measure; figures stay until they are measured again."""
        count = len(self.session.latest())
        self.go.disabled = count == 0
        if self.waterfall.figure is None:
            sentence = (
                "No layer is quantized yet: press Quantize the whole model, then measure here."
                if not count
                else f"{count} of {len(self.session.model.layer_names)} layers are quantized: press Measure the error budget."
            )
            self.waterfall.say(WHENCE, sentence)
            self.interactions.say(HURT, "Measured with the error budget, if at least two layers are quantized.")

    def measure(self) -> None:
        """Run the error budget of the latest results."""
        quantized, top = self.session.quantized(), int(self.top.value or 2)

        def steps() -> Generator[Measured, None, Any]:
            return (yield from error_budget_steps(self.session.shared.replay(quantized.fused), quantized, top=top))

        self.jobs.run(steps, "error budget", on_step=describe_step, ended=self._ended)

    def _ended(self, job: Job[Any]) -> None:
        if job.status != "done":
            return
        budget = job.result()
        self.waterfall.draw(views.draw_error_waterfall(budget, theme=choose_theme()))
        if len(budget.pairs):
            self.interactions.draw(views.draw_interactions(budget, theme=choose_theme()))


def describe_step(job: Job[Any]) -> str | None:
    """What was measured last."""
    return f"Measured {job.latest.what}, {job.progress:.0%}." if isinstance(job.latest, Measured) else None
