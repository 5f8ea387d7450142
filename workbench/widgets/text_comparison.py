"""Does it still write the same? Original and quantized model continue one prompt side by side."""

from collections.abc import Generator
from typing import Any

import panel as pn

from workbench.jobs import Job
from workbench.views import text as views
from workbench.views.theme import Theme
from workbench.widgets.component import Component, chosen, data_table, theme
from workbench.widgets.job_panel import JobPanel


class TextComparison(Component):
    """A prompt, two continuations and the first token at which they part."""

    def build(self) -> pn.viewable.Viewable:
        """Prompt and button above, the two texts beside each other where there is room."""
        self.prompt = pn.widgets.TextInput(label="Prompt", sizing_mode="stretch_width")
        self.tokens = pn.widgets.IntInput(label="Tokens", value=120, start=1, end=500, width=110)
        self.go = pn.widgets.Button(label="Write", color="primary", width=110, margin=(24, 10, 5, 10), stylesheets=[chosen()])
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        self.jobs.param.watch(lambda event: self.go.param.update(disabled=event.new), "running")
        self.sentence = pn.pane.HTML("", sizing_mode="stretch_width")
        self.left, self.right = (pn.pane.HTML("", sizing_mode="stretch_width") for _ in range(2))
        self.as_table = pn.widgets.Toggle(label="Show as table", value=False, variant="outline", width=130)
        self.table = pn.Column(sizing_mode="stretch_width")
        self.pieces: tuple[list[str], list[str]] = ([], [])
        self.as_table.param.watch(lambda _: self._show(), "value")
        self.go.on_click(lambda _: self.write())
        wide = {"flex": "1 1 300px", "min-width": "280px"}
        columns = [pn.Column(side, styles=wide) for side in (self.left, self.right)]
        return pn.Column(
            pn.Row(self.prompt, self.tokens, self.go, sizing_mode="stretch_width"),
            self.jobs,
            self.sentence,
            pn.FlexBox(*columns, sizing_mode="stretch_width"),
            self.as_table,
            self.table,
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """The session's prompt; texts stay until they are written again."""
        self.prompt.value = self.session.choice.prompt
        if not any(self.pieces):
            self.sentence.object = heading("Does it still write the same?", "Press Write to let both models continue the prompt.")

    def write(self) -> None:
        """Let both models write, token by token."""
        if self.jobs.running:
            return
        self.live.choose(lambda: self.session.ask(self.prompt.value or ""))
        tokens = int(self.tokens.value or 1)
        self.pieces = ([], [])

        def steps() -> Generator[Any, None, None]:
            yield from self.session.write(tokens)

        self.jobs.run(steps, "writing", seen=self._seen, ended=self._ended)

    def _seen(self, job: Job[Any]) -> str:
        if job.latest is not None:
            self.pieces = job.latest
            self._show(done=False)
        return f"Writing: {max(map(len, self.pieces))} tokens."

    def _ended(self, job: Job[Any]) -> None:
        self._show()
        if job.error is not None:
            self.sentence.object = heading("Does it still write the same?", str(job.error))

    def _show(self, done: bool = True) -> None:
        left, right = (list(side) for side in self.pieces)
        if not left and not right:
            return
        shown = views.side_by_side(self.session.choice.prompt, left, right, done=done)
        self.sentence.object = heading(shown.question, shown.answer)
        self.left.object, self.right.object = (
            page("original", shown.original, theme()),
            page("quantized", shown.quantized, theme()),
        )
        self.table[:] = [data_table(shown.table)] if self.as_table.value else []


def heading(question: str, answer: str) -> str:
    """A question as the title and its answer."""
    return f"<h2 style='font-size:1.15rem;margin:0'>{question}</h2><p style='margin:2px 0' aria-live='polite'>{answer}</p>"


def page(side: str, text: str, colours: Theme) -> str:
    """One text, its edge in the colour of its model; the first differing token stands out by colour and underline."""
    edge = colours.original if side == "original" else colours.quantized
    fork = f"background:{colours.action};color:{colours.contrast};text-decoration:underline;border-radius:2px;padding:0 2px"
    title = f"<h3 style='margin:0;font-size:1rem'>{side}</h3>"
    body = f"<p style='white-space:pre-wrap;font-size:1.05rem;line-height:1.5;margin:4px 0'>{text}</p>"
    frame = f"<section aria-label='{side} text' style='border-left:4px solid {edge};padding:4px 12px'>{title}{body}</section>"
    return f"<style>.prompt{{color:{colours.muted}}} mark.fork{{{fork}}}</style>{frame}"
