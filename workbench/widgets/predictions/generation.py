"""Does it still write the same? Original and quantized model continue one prompt side by side."""

from collections.abc import Generator
from typing import Any

import panel as pn

from workbench.analysis.predictions.generation import Writing
from workbench.analysis.predictions.generation_speed import Running
from workbench.jobs import Job
from workbench.session.runs import ORIGINAL
from workbench.views.predictions import generation as views
from workbench.widgets.base.component import Component, FigureFrame, choose_theme, render_chosen_css
from workbench.widgets.base.controls import BESIDE, build_action_button
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.markup import render_paragraph
from workbench.widgets.elements.text_pages import TextPages
from workbench.widgets.predictions.fork import ForkView

WRITE_FIRST = "Press Write to let both models continue the prompt."


class TextComparison(Component):
    """Let the original and the quantized model continue a prompt: the first token at which they part, and what both expected.

    `writing` is what is shown, as a value; `running` the speed and memory of both models, measured when the texts are written.

    Example:
        >>> import workbench as wb
        >>> comparison = wb.TextComparison(wb.open_model("builtin"))
        >>> comparison.prompt.value, comparison.tokens.value
        ('Once upon a time', 120)
        >>> comparison.writing.done  # the button has not been pressed
        False
    """

    watches = ("choice", "results", "selection")

    def build(self) -> pn.viewable.Viewable:
        """Prompt and button above, the two texts beside each other where there is room, figures of their tokens below."""
        self.prompt = pn.widgets.TextInput(
            label="Prompt", sizing_mode="stretch_width", description="Text that both models continue"
        )
        self.tokens = pn.widgets.IntInput(
            label="Tokens",
            value=120,
            start=1,
            end=500,
            width=110,
            description="Maximum number of tokens that each model generates",
        )
        self.go = build_action_button("Write", "Let both models continue the prompt", 110)
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        self.jobs.param.watch(lambda event: self.go.param.update(disabled=event.new), "running")
        self.pages, self.measured = TextPages(self._pick), pn.pane.HTML("", sizing_mode="stretch_width")
        self.position = pn.widgets.IntInput(
            label="Token", value=1, start=1, width=110, description="Token after the prompt to inspect, counted from 1"
        )
        self.side = pn.widgets.RadioButtonGroup(
            label="Text", options=["original", "quantized"], width=220, margin=BESIDE, stylesheets=[render_chosen_css()]
        )
        self.expected, self.divergence = FigureFrame(), FigureFrame()
        self.details = pn.Column(
            self.divergence, pn.FlexBox(self.position, self.side), self.expected, sizing_mode="stretch_width", visible=False
        )
        self.forks = self.part(ForkView)
        self.writing, self.running = Writing(), list[Running]()
        self.names = self.session.compared.labels  # of the two runs that wrote
        self.go.on_click(lambda _: self.notices.guard(self.write))
        self.position.param.watch(lambda event: self._choose(event.new), "value")
        self.divergence.plot.param.watch(lambda event: self._clicked(event.new), "click_data")
        self.side.param.watch(lambda _: self._details(), "value")
        return pn.Column(
            pn.Row(self.prompt, self.tokens, self.go, sizing_mode="stretch_width"),
            self.jobs,
            self.pages,
            self.measured,
            self.details,
            pn.pane.HTML("<hr>", sizing_mode="stretch_width"),
            self.forks,
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """The session's prompt and the marked token; texts stay until they are written again."""
        self.prompt.value = self.session.choice.prompt
        if not self.writing.original and not self.writing.quantized:
            self.pages.say(views.TEXT_QUESTION, WRITE_FIRST)
            return
        self._show()

    def write(self) -> None:
        """Let both models write, token by token; then measure how fast they are."""
        if self.jobs.running:
            return
        self.live.choose(lambda: self.session.ask(self.prompt.value or ""))
        tokens = int(self.tokens.value or 1)
        self.writing, self.running, self.details.visible, self.measured.object = Writing(), [], False, ""
        self.names = self.session.compared.labels

        def steps() -> Generator[Any, None, None]:
            for writing in self.session.write(tokens):
                self.writing = writing
                yield writing
            self.running = yield from self.session.running()

        self.jobs.run(steps, "writing", on_step=self._on_step, ended=self._ended)

    def _on_step(self, _job: Job[Any]) -> str:
        self._show()
        if self.writing.done:
            return "Measuring how fast both models write …"
        return f"Writing: {max(map(len, self.writing.sides))} tokens."

    def _ended(self, job: Job[Any]) -> None:
        self._show()
        if job.error is not None:
            self.pages.say(views.TEXT_QUESTION, str(job.error))

    def _show(self) -> None:
        writing = self.writing
        if not any(writing.sides):
            return
        beside, shown = self.names
        names, prompt = views.name_texts(beside, shown), self.session.choice.prompt
        page = views.build_text_comparison(prompt, writing, self._marked(), choosable=True, names=names, theme=choose_theme())
        self.pages.draw(page, *(("quantized", beside) if beside == ORIGINAL else (shown, beside)))
        models = ("the original", "the quantized model") if beside == ORIGINAL else names
        self.measured.object = render_paragraph(views.describe_speed_and_memory(self.running, models)) if self.running else ""
        self.details.visible = writing.done or not self.jobs.running
        if self.details.visible:
            self._details()

    def _details(self) -> None:
        """KL along the texts, and what was expected at the marked token, or at the fork where none is marked."""
        writing = self.writing
        if not any(writing.sides):
            return
        position = self._marked()
        self.divergence.draw(views.draw_token_kl(writing, position, theme=choose_theme()))
        side = getattr(writing, self.side.value)
        at = (writing.fork or 0) if position is None else position
        self.position.param.update(end=max(map(len, writing.sides)), value=at + 1)
        if at < len(side):
            self.expected.draw(views.draw_likeliest_tokens(side[at], at, self.side.value, theme=choose_theme()))
        else:
            ended = f"The {self.side.value} text ends after {len(side)} tokens: select an earlier one, or the other text."
            self.expected.say("What did each model predict here?", ended)

    def _marked(self) -> int | None:
        """The place of the marked token, if it lies in the text on show."""
        marked = self.session.selection.tokens
        return marked[0] if marked and marked[0] < max(map(len, self.writing.sides)) else None

    def _choose(self, position: int | None) -> None:
        """Mark a token for everybody; showing the fork marks nothing."""
        at = (position or 1) - 1
        if at != ((self.writing.fork or 0) if self._marked() is None else self._marked()):
            self.notices.guard(lambda: self.live.mark(tokens=(at,)))

    def _pick(self, at: int) -> None:
        """A token of a text was chosen, from 0: it is marked for everybody."""
        self.notices.guard(lambda: self.live.mark(tokens=(at,)))

    def _clicked(self, data: Any) -> None:
        """A bar was clicked; bars stand for tokens in their order."""
        for point in (data or {}).get("points", [])[:1]:
            self._pick(int(point["pointNumber"]))
