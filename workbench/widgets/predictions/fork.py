"""Why does the text diverge here? The fork of two texts, the layers to blame, and whether the quantized model recovers."""

from collections.abc import Generator
from typing import Any, ClassVar

import panel as pn

from workbench.analysis.predictions.fork import ForkFinder
from workbench.jobs import Job
from workbench.session.blame import Blame, find_blame_steps, mark_guilty
from workbench.views.predictions import fork as views
from workbench.widgets.base.component import Component, FigureFrame, choose_theme
from workbench.widgets.base.controls import build_action_button
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.markup import render_paragraph
from workbench.widgets.elements.text_pages import render_text_page
from workbench.widgets.elements.token_buttons import Tokens

PART, BLAME = "Where do the texts diverge?", "Which layers are to blame?"


class ForkView(Component):
    """The original's greedy text, read by both models: KL by token, the first fork, blame by layer, forced rewind."""

    watches: ClassVar[tuple[str, ...]] = ("results", "selection")

    def build(self) -> pn.viewable.Viewable:
        """A button, the two figures, and the rewind."""
        self.tokens = pn.widgets.IntInput(
            label="Look ahead",
            value=80,
            start=2,
            end=400,
            width=110,
            description="Number of tokens after the prompt that both models read",
        )
        self.go = self.does(
            build_action_button("Find the fork", "The first token that differs, and the layers to blame for it", 150), self.find
        )
        self.continuations = pn.widgets.IntInput(
            label="Continuations",
            value=12,
            start=2,
            end=100,
            width=110,
            description="Number of continuations sampled after a forced token",
        )
        self.back = self.does(
            build_action_button("Force the original token", "Continue from the fork with the original's token", 200, main=False),
            self.rewind,
        )
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        self.along, self.blame = FigureFrame(), FigureFrame()
        self.along.plot.param.watch(lambda event: self._clicked(event.new), "click_data")
        self.text = Tokens(self._pick, margin=(0, 10))
        self.recovery = pn.pane.HTML("", sizing_mode="stretch_width", margin=(0, 10))
        self.finder: ForkFinder | None = None
        return pn.Column(
            pn.FlexBox(self.tokens, self.go, self.continuations, self.back),
            self.jobs,
            self.along,
            self.text,
            self.blame,
            self.recovery,
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """What there is to do; what was found stays until it is looked for again."""
        count = len(self.session.latest())
        self.go.disabled = count == 0
        self.back.disabled = self.finder is None or self.finder.fork is None
        if self.finder is None:
            after = "press Find the fork." if count else "quantize a layer or the whole model first."
            self.along.say(PART, f"Both models read the original's text for the prompt above: {after}")
            self.blame.say(BLAME, "Shown once the fork is found.")
        else:
            self._draw(self.finder)

    def _draw(self, finder: ForkFinder) -> None:
        """KL along the text, and the text itself; the marked token stands out in both."""
        table, fork, marks = finder.table, finder.fork, self.session.selection.tokens
        chosen = marks[0] if marks and marks[0] < len(table) else None
        self.along.draw(views.draw_text_fork(table, fork, chosen, theme=choose_theme()))
        self.text.object = render_text_page(
            "original", views.render_fork_text(table, fork, chosen, theme=choose_theme()), choose_theme()
        )

    def _pick(self, at: int) -> None:
        """A token was chosen, from 0: it is marked for everybody."""
        self.notices.guard(lambda: self.live.mark(tokens=(at,)))

    def _clicked(self, data: Any) -> None:
        """A bar was clicked; bars stand for tokens in their order."""
        for point in (data or {}).get("points", [])[:1]:
            self._pick(int(point["pointNumber"]))

    def find(self) -> None:
        """Look for the fork under the prompt of the session."""
        model, quantized = self.session.model, self.session.quantized()
        prompt, tokens = self.session.choice.prompt, int(self.tokens.value or 2)

        def steps() -> Generator[Any, None, Blame]:
            return (yield from find_blame_steps(model, quantized, prompt, tokens))

        self.jobs.run(steps, "looking for the fork", ended=self._show_fork)

    def _show_fork(self, job: Job[Any]) -> None:
        if job.status != "done":
            return
        blame: Blame = job.result()
        self.finder = blame.finder
        if blame.table is None or blame.guilt is None or self.finder.fork is None:
            self.blame.say(BLAME, "No layer: the texts do not diverge. Increase Look ahead, or use fewer bits.")
        else:
            self.blame.draw(views.draw_fork_blame(blame.table, self.finder.fork, blame.guilt, theme=choose_theme()))
        self.recovery.object = ""
        self.refresh()
        self.live.choose(lambda: mark_guilty(self.session, blame))
        self.live.announce("results")

    def rewind(self) -> None:
        """Force the original's token and draw continuations."""
        finder, continuations = self.finder, int(self.continuations.value or 2)
        assert finder is not None

        def steps() -> Generator[Any, None, Any]:
            return (yield from finder.rewind_steps(continuations))

        self.jobs.run(steps, "rewinding", ended=self._rewound)

    def _rewound(self, job: Job[Any]) -> None:
        if job.status == "done":
            self.recovery.object = render_paragraph(views.describe_fork_recovery(job.result()))
