"""The quant card of this session's results: its figures, the file to download, and the differences from another card."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import panel as pn

from workbench.analysis.decisions.quant_card import hash_tree
from workbench.analysis.decisions.quant_card_diff import diff_cards
from workbench.analysis.decisions.quant_card_file import parse_facts
from workbench.analysis.decisions.study_time import count_weights, estimate_reading_seconds
from workbench.errors import WorkbenchError
from workbench.jobs import Job
from workbench.quantized import QuantizedModel
from workbench.session.runs import Run
from workbench.views import theme as themes
from workbench.views.decisions.quant_card import Card, card
from workbench.widgets.base.component import Component, FigureFrame, build_data_table, choose_theme
from workbench.widgets.base.controls import BESIDE, build_action_button, build_token_input
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.markup import render_heading, render_paragraph
from workbench.widgets.elements.download import Delivery

CARD_TOKENS = 2048
DEFAULT_BITS = 2  # of the stop whose card is made where nothing is quantized
CARD_QUESTION = "How was the model quantized, and at what cost?"


@dataclass(frozen=True)
class Begun:
    """The card is being measured."""

    fraction: float = 0.0


class CardView(Component):
    """Make the card of the latest results and download it; `card` is it as a value, None until it is made.

    Example:
        >>> import workbench as wb
        >>> result = wb.quantize(wb.open_model("builtin"), "model.layers.0.mlp.down_proj", wb.recipe("rtn", bits=2))
        >>> view = wb.CardView(result, threaded=False)
        >>> view.tokens.value = 128
        >>> view.make()  # as its button does
        >>> view.card.facts["model"]["quantized_layers"]
        1
    """

    watches = ("results",)

    def build(self) -> pn.viewable.Viewable:
        """Buttons above, figures below, the comparison at the end."""
        self.card: Card | None = None
        self.origin = ""  # what the card is of, where that is not what is quantized on the bench
        self.tokens = build_token_input(CARD_TOKENS)
        self.go = build_action_button("Make the card", "Measure the current quantization and collect everything in one file", 140)
        self.delivery = Delivery()
        self.page, self.data = (
            pn.widgets.Button(label=f"Download card.{kind}", width=190, margin=BESIDE, description=description, disabled=True)
            for kind, description in (
                ("html", "One page that opens offline"),
                ("json", "The same facts in machine-readable form"),
            )
        )
        self.other = pn.widgets.FileInput(
            label="Another card.json", accept=".json", width=300, description="A card.json from another run or machine"
        )
        self.jobs = JobPanel(self.notices, threaded=self.threaded)
        self.jobs.param.watch(lambda event: self.go.param.update(disabled=event.new), "running")
        self.sentence = pn.pane.HTML("", sizing_mode="stretch_width")
        self.frames = {name: FigureFrame() for name in ("perplexity", "ledger", "errors")}
        self.difference = pn.Column(sizing_mode="stretch_width")
        self.go.on_click(lambda _: self.notices.guard(self.make))
        self.page.on_click(lambda _: self.notices.guard(lambda: self.download("html")))
        self.data.on_click(lambda _: self.notices.guard(lambda: self.download("json")))
        self.other.param.watch(lambda _: self.notices.guard(self.compare), "value")
        return pn.Column(
            pn.FlexBox(self.tokens, self.go, self.page, self.data, self.delivery),
            self.jobs,
            self.sentence,
            *self.frames.values(),
            pn.pane.HTML("<h2 style='font-size:1.15rem;margin:0'>What differs from another card?</h2>"),
            self.other,
            self.difference,
            sizing_mode="stretch_width",
        )

    def refresh(self) -> None:
        """The card there is, or what to do; when results changed since, it says so."""
        if self.card is None:
            next_step = f"press Make the card ({self._describe_cost()})"
            if not self.session.latest():
                next_step = "quantize a layer or the whole model on the bench first"
            self._say(f"There is no card yet: {next_step}.")
        else:
            self._show()

    def begin_default(self) -> None:
        """Make the card of what is quantized, or else of the stop on show or the one at two bits, if it is built."""
        if self.session.latest():
            self.make()
            return
        runs, squeeze = self.session.runs, self.session.shared.squeeze
        stops = [runs.current.stop, *(stop for stop in squeeze.stops if stop.bits == DEFAULT_BITS)]
        for run in (Run(f"stop at {stop.bits:g} bits", stop=stop) for stop in stops if stop is not None):
            if (quantized := runs.quantized(run)) is not None:
                self.origin = f" This is the card of the {run.label}: nothing is quantized on the bench yet."
                self._make(quantized)
                return

    def _describe_cost(self) -> str:
        """What making it takes: both models read the text, the layers are decoded."""
        tokens = 2 * int(self.tokens.value or CARD_TOKENS)
        seconds = estimate_reading_seconds(count_weights(self.session.model), tokens)
        return f"{themes.format_estimate(seconds)} on this machine"

    def make(self) -> None:
        """Measure and gather."""
        quantized, self.origin = self.session.quantized(), ""
        self._make(quantized)

    def _make(self, quantized: QuantizedModel) -> None:
        tokens = int(self.tokens.value or CARD_TOKENS)

        def steps() -> Generator[Begun, None, Card]:
            yield Begun()
            return card(quantized, self.session.model, tokens=tokens)

        self.jobs.run(steps, "making the card", ended=self._made_one)

    def _made_one(self, job: Job[Any]) -> None:
        if job.error is None and job.progress == 1.0:
            self.card = job.result()
        self.refresh()

    def _show(self) -> None:
        assert self.card is not None
        self.page.disabled = self.data.disabled = False
        stale = not self.origin and self.card.facts["hashes"]["layers"] != {
            name: hash_tree(layer.packed) for name, layer in self.session.latest().items()
        }
        more = " Results have changed since then: press Make the card again." if stale else ""
        self.sentence.object = render_heading(CARD_QUESTION, self.card.answer + self.origin + more)
        for name, figure in self.card.figures(choose_theme()).items():
            self.frames[name].view.visible = True
            self.frames[name].draw(figure)

    def _say(self, sentence: str) -> None:
        self.sentence.object = render_heading(CARD_QUESTION, sentence)
        for frame in self.frames.values():
            frame.view.visible = False

    def download(self, kind: str) -> None:
        """Save the card as "html" or "json" on the visitor's machine."""
        if self.card is None:
            raise WorkbenchError("there is no card yet: press Make the card.")
        self.delivery.send(f"card.{kind}", self.card.html() if kind == "html" else self.card.json())

    def compare(self) -> None:
        """What differs between the chosen card and the one made here."""
        if self.other.value is None:
            return
        if self.card is None:
            raise WorkbenchError("there is nothing to compare with yet: press Make the card first.")
        differences = diff_cards(parse_facts(self.other.value, f"the card {self.other.filename}"), self.card.facts)
        table = differences.table()
        table[["first", "second"]] = table[["first", "second"]].astype(str)
        parts = [pn.pane.HTML(render_paragraph(" ".join([differences.answer, *differences.skipped])))]
        self.difference[:] = [*parts, build_data_table(table)] if len(table) else parts
