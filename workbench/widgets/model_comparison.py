"""Saved quantized models beside the original: bits, size, KL and perplexity of each, and the text of any of them."""

from collections.abc import Callable, Generator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import panel as pn
import torch

from workbench.analysis.models import CompareStep, Contender, compare_models
from workbench.analysis.writing import Writing, write_together
from workbench.artifact import load
from workbench.jobs import Job
from workbench.models import ModelHandle
from workbench.models.language_model import LanguageModel
from workbench.models.text import text
from workbench.session import Session
from workbench.views import models as views
from workbench.views import text as text_views
from workbench.widgets.component import Component, FigureFrame, Live, chosen, data_table, theme
from workbench.widgets.job_panel import JobPanel
from workbench.widgets.notices import Notices
from workbench.widgets.text_pages import TextPages

TOKENS = 4096  # of the evaluation text, unless the visitor wants more
WRITTEN = 80
NOTHING = (
    "No saved model was named: start the app with folders that `workbench quantize` wrote, or build the stops of the squeeze."
)


class ModelComparison(Component):
    """A table and a figure of several models, and two texts beside each other.

    `folders` hold saved models; without any, the stops of the squeeze slider that have been built are compared. `table` is what
    was measured, as a value.
    """

    watches = ()  # what is compared does not depend on the layer or the recipe

    def __init__(
        self, live: Live | Session, notices: Notices | None = None, *, threaded: bool = True, folders: Sequence[str | Path] = ()
    ) -> None:
        self.folders = [Path(folder) for folder in folders]
        self.table = pd.DataFrame()
        super().__init__(live, notices, threaded=threaded)

    def build(self) -> pn.viewable.Viewable:
        """What is compared on how much text; figure and table; then the texts."""
        self.original = original(self.session.model)
        self.others = [saved(folder) for folder in self.folders] or squeezed(self.session)
        names = [other.name for other in self.others]
        wide = {"sizing_mode": "stretch_width"}
        self.tokens = pn.widgets.IntInput(
            label="Tokens", value=TOKENS, start=64, step=1024, width=120, description="Of held-out text"
        )
        self.go = pn.widgets.Button(
            label="Measure", color="primary", width=120, stylesheets=[chosen()], description="KL and perplexity of every model"
        )
        self.which = pn.widgets.Select(label="Beside the original", options=names, width=260, description="Whose text is written")
        self.prompt = pn.widgets.TextInput(
            label="Prompt", value=self.session.choice.prompt, description="Both continue it", **wide
        )
        self.write = pn.widgets.Button(label="Write", width=120, description="Let both models continue the prompt")
        self.frame, self.pages, self.rows = FigureFrame(), TextPages(), pn.Column(**wide)
        self.measuring = JobPanel(self.notices, threaded=self.threaded, queue=self.session.shared.queue)
        self.writing = JobPanel(self.notices, threaded=self.threaded)
        for panel in (self.measuring, self.writing):
            panel.param.watch(lambda _: self._free(), "running")
        self.go.on_click(lambda _: self.notices.guard(self.measure))
        self.write.on_click(lambda _: self.notices.guard(self.compare_texts))
        return pn.Column(
            pn.FlexBox(self.tokens, self.go, align_items="end"),
            self.measuring,
            self.frame,
            self.rows,
            pn.FlexBox(self.which, pn.Column(self.prompt, styles={"flex": "1 1 300px"}), self.write, align_items="end"),
            self.writing,
            self.pages,
            **wide,
        )

    def refresh(self) -> None:
        """What there is to compare."""
        self._free()
        count = len(self.others)
        ready = f"{count} saved models are ready: press Measure." if count > 1 else "One saved model is ready: press Measure."
        self.frame.say(views.QUESTION, ready if self.others else NOTHING)
        self.pages.say(text_views.QUESTION, "Press Write to let both models continue the prompt." if self.others else NOTHING)

    def measure(self) -> None:
        """Measure every model against the original."""
        tokens = int(self.tokens.value or TOKENS)

        def steps() -> Generator[CompareStep, None, pd.DataFrame]:
            return (yield from compare_models(self.original, self.others, text("evaluation"), tokens=tokens))

        self.measuring.run(steps, "measuring", seen=self._seen)

    def compare_texts(self) -> None:
        """The original and the chosen model continue the prompt."""
        other = next(other for other in self.others if other.name == self.which.value)
        prompt = self.prompt.value or ""

        def steps() -> Generator[Writing, None, None]:
            yield from write_together(self.original.model(), other.model(), prompt, WRITTEN)

        def seen(job: Job[Any]) -> str:
            if job.latest is not None:
                self.pages.draw(text_views.side_by_side(prompt, job.latest, theme=theme()))
            return "Writing …"

        self.writing.run(steps, "writing", seen=seen)

    def _seen(self, job: Job[Any]) -> None:
        if job.latest is not None and len(job.latest.table) != len(self.table):
            self.table = job.latest.table
            self.frame.draw(views.bits_against_divergence(self.table, theme=theme()))
            self.rows[:] = [data_table(self.table)]

    def _free(self) -> None:
        self.go.disabled = self.measuring.running or not self.others
        self.write.disabled = self.writing.running or not self.others


def original(model: ModelHandle) -> Contender:
    """The model that the others were made from, with the bits of its checkpoint."""
    layers = model.layers()
    weights = layers["parameters"]
    bits = sum(weights * [8 * getattr(torch, dtype).itemsize for dtype in layers["dtype"]]) / weights.sum()
    size = sum(path.stat().st_size for path in model.folder.glob("*.safetensors"))
    return Contender("original", model.language_model, float(bits), float(bits), size)


def saved(folder: Path) -> Contender:
    """A folder that `workbench quantize` wrote; ArtifactError where it holds no such thing."""
    packed = load(folder)
    return Contender(folder.name, packed.language_model, packed.bits_per_weight, packed.nominal_bits, packed.bytes)


def squeezed(session: Session) -> list[Contender]:
    """The stops of the squeeze slider that are there, but for the first, which changes nothing."""
    squeeze = session.shared.squeeze
    built = [(stop, squeeze.find(stop)) for stop in squeeze.stops[1:]]
    return [
        Contender(stop.preset, opened(squeeze.model_at, stop), found.bits_per_weight, found.nominal_bits, found.bytes)
        for stop, found in built
        if found is not None
    ]


def opened(open_one: Callable[[Any], LanguageModel], place: Any) -> Callable[[], LanguageModel]:
    """A model that is opened when it is asked for, once."""
    return cache(lambda: open_one(place))
