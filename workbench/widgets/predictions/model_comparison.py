"""Saved quantized models beside the original: bits, size, KL and perplexity of each, and their texts."""

import html
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import pandas as pd
import panel as pn

from workbench.analysis.decisions.headline import count_stored
from workbench.analysis.decisions.pins import make_unique_label
from workbench.analysis.decisions.stops import Stop
from workbench.analysis.predictions.model_table import CompareStep, Contender, compare_models
from workbench.artifact import load
from workbench.errors import ArtifactError, WorkbenchError
from workbench.jobs import Job
from workbench.models import ModelHandle
from workbench.models.language_model import LanguageModel
from workbench.models.text import text
from workbench.quantized import QuantizedModel
from workbench.session import Session
from workbench.views import theme as themes
from workbench.views.predictions import model_table as views
from workbench.widgets.base.background_figure import Study
from workbench.widgets.base.component import Component, FigureFrame, build_data_table, choose_theme, render_chosen_css
from workbench.widgets.base.job_panel import JobPanel
from workbench.widgets.base.live import Live, Subject
from workbench.widgets.base.notices import Notices
from workbench.widgets.base.responsive import build_responsive_column
from workbench.widgets.predictions.generation import TextComparison

COMPARISON_TOKENS = 4096  # of the evaluation text, unless the visitor wants more
NO_MODELS = (
    "No saved model was given: start the app with folders written by `workbench quantize`, or build the stops of the squeeze."
)


@dataclass(frozen=True)
class Saved:
    """A model to measure, and its layers, to be taken into a session."""

    contender: Contender
    layers: Callable[[], QuantizedModel]


class ModelComparison(Component):
    """Compare several saved models on one text, and what one of them writes with what the original writes.

    `table` is what was measured and `texts` the comparison of written texts, as values.

    Args:
        model: The original: a model from `wb.open_model` or its name, a session, or another component, which then is linked.
        layer: The layer to select, the first one when absent.
        folders: Folders of saved models; without any, the stops of the squeeze slider that have been built are compared.
        notices: Where failures are shown, above the component itself when absent.
        threaded: Whether jobs run in a thread of their own.

    Raises:
        WorkbenchError: For a subject of another type.
        ModelError: For a model that cannot be opened, or has no such layer.

    Example:
        >>> import workbench as wb
        >>> comparison = wb.ModelComparison(wb.open_model("builtin"))
        >>> comparison.table.empty  # nothing is measured yet
        True
    """

    watches = ()  # what is compared does not depend on the layer or the recipe

    def __init__(
        self,
        model: Subject,
        layer: str | None = None,
        *,
        folders: Sequence[str | Path] = (),
        notices: Notices | None = None,
        threaded: bool = True,
    ) -> None:
        self.folders = [Path(folder) for folder in folders]
        self.table = pd.DataFrame()
        self.texts: TextComparison | None = None
        super().__init__(model, layer, notices=notices, threaded=threaded)

    def build(self) -> pn.viewable.Viewable:
        """What is compared on how much text; figure and table; then the texts."""
        self.original = _make_original_contender(self.session.model)
        self.others: dict[str, Saved] = {}
        wide = {"sizing_mode": "stretch_width"}
        self.tokens = pn.widgets.IntInput(
            label="Tokens",
            value=COMPARISON_TOKENS,
            start=64,
            step=1024,
            width=120,
            description="Number of tokens of held-out text",
        )
        self.go = pn.widgets.Button(
            label="Measure",
            color="primary",
            width=120,
            stylesheets=[render_chosen_css()],
            description="Measure KL and perplexity of every model",
        )
        self.which = pn.widgets.Select(
            label="Beside the original",
            options=[],
            width=260,
            description="Model whose text is compared and that the figures mark",
        )
        self.closest, self.reads = FigureFrame(), FigureFrame()
        self.rows, self.texts_pane = pn.Column(**wide), pn.Column(**wide)
        self.jobs = JobPanel(self.notices, threaded=self.threaded, queue=self.session.shared.queue)
        self.jobs.param.watch(lambda _: self._free(), "running")
        self.go.on_click(lambda _: self.notices.guard(self.measure))
        self.which.param.watch(lambda _: self.notices.guard(self.choose), "value")
        both = [pn.Column(frame, styles={"flex": "1 1 520px", "min-width": "280px"}) for frame in (self.closest, self.reads)]
        parts = [
            pn.FlexBox(self.tokens, self.go, align_items="end", **wide),
            self.jobs,
            pn.FlexBox(*both, gap="12px", **wide),
            self.rows,
        ]
        head = pn.pane.HTML(f"<h1 style='font-size:1.35rem;margin:0'>workbench · {html.escape(self.session.model.source)}</h1>")
        self.opening = Study(self.texts_pane, self.notices, threaded=self.threaded)
        below = pn.Column(self.which, self.opening, **wide)
        self.below = build_responsive_column(below, "strip")
        columns = pn.FlexBox(build_responsive_column(pn.Column(*parts, **wide), "strip"), self.below, gap="12px", **wide)
        self.reading = Study(columns, self.notices, threaded=self.threaded)
        return pn.Column(head, self.reading, **wide)

    def refresh(self) -> None:
        """Read what there is to compare, once the page is there; models of any size are read out of its way."""
        model = self.session.model
        places = [attempt(partial(load_contender, folder, model)) for folder in self.folders] or [
            attempt(one) for one in _list_squeezed_models(self.session)
        ]
        self.closest.say(views.CLOSEST, f"Reading {themes.format_count(len(places), 'saved model')} …" if places else NO_MODELS)
        self.reads.say(views.READS, "This figure is drawn after the measurement.")
        self.below.visible = False
        self._free()
        if places:
            pn.state.onload(lambda: self.reading.run(places, self._read, at_once=False))

    def _read(self, *opened_models: Saved | WorkbenchError) -> None:
        """Offer what could be read; why another could not is a notice."""
        for other in opened_models:
            if isinstance(other, WorkbenchError):
                self.notices.report(other)
                continue
            name = make_unique_label(other.contender.name, self.others)
            self.others[name] = replace(other, contender=replace(other.contender, name=name))
        count = len(self.others)
        ready = f"{themes.format_count(count, 'saved model is', 'saved models are')} ready: press Measure."
        self.closest.say(views.CLOSEST, ready if count else "No saved model could be read; see the notice above.")
        self.below.visible = count > 0
        self._free()
        self.which.param.update(options=list(self.others), value=next(iter(self.others), None))

    def choose(self) -> None:
        """Mark the chosen model in the figures, and read its layers."""
        self._draw()
        if self.which.value is None:
            self.texts_pane[:] = []
            return
        self.opening.run([self.others[self.which.value].layers], self._opened, at_once=False)

    def _opened(self, layers: QuantizedModel) -> None:
        """Compare the chosen model's text on a session of its own, with the prompt so far."""
        session, before = Session(self.session.shared), self.texts
        session.take(layers)
        session.ask(before.prompt.value or "" if before is not None else self.session.choice.prompt)
        if before is not None:
            before.jobs.cancel()
            before.forks.jobs.cancel()
        self.texts = TextComparison(Live(session), notices=self.notices, threaded=self.threaded)
        self.texts_pane[:] = [self.texts]

    def measure(self) -> None:
        """Measure every model against the original."""
        tokens, others = int(self.tokens.value or COMPARISON_TOKENS), [other.contender for other in self.others.values()]

        def steps() -> Generator[CompareStep, None, pd.DataFrame]:
            return (yield from compare_models(self.original, others, text("evaluation"), tokens=tokens))

        self.jobs.run(steps, "measuring", on_step=self._on_step)

    def _on_step(self, job: Job[Any]) -> None:
        if job.latest is not None and job.latest.table is not self.table:
            self.table = job.latest.table
            self._draw()
            self.rows[:] = [build_data_table(self.table)]

    def _draw(self) -> None:
        if len(self.table):
            self.closest.draw(views.draw_kl_by_bits(self.table, self.which.value, theme=choose_theme()))
            self.reads.draw(views.draw_perplexity_by_bits(self.table, self.which.value, theme=choose_theme()))

    def _free(self) -> None:
        self.go.disabled = self.jobs.running or not self.others


def _make_original_contender(model: ModelHandle) -> Contender:
    """The model that the others were made from, with the bits of its checkpoint."""
    stored = count_stored(model, None)
    return Contender("original", model.language_model, stored.bits_per_weight, stored.nominal_bits, stored.bytes)


def load_contender(folder: Path, model: ModelHandle) -> Saved:
    """A folder that `workbench quantize` wrote; ArtifactError where it holds no such thing, or one made from another model."""
    packed = load(folder)
    if packed.fingerprint != model.fingerprint:
        raise ArtifactError(
            f"{folder} was quantized from {packed.source!r}, not from the current {model.source!r}; give that model first."
        )
    contender = Contender(folder.name, packed.language_model, packed.bits_per_weight, packed.nominal_bits, packed.bytes)
    return Saved(contender, lambda: packed.quantized)


def _list_squeezed_models(session: Session) -> list[Callable[[], Saved]]:
    """The stops of the squeeze slider that are there, but for the first, which changes nothing; each to be called."""
    squeeze = session.shared.squeeze

    def at(stop: Stop, built_stop: Any) -> Saved:
        bits = (built_stop.bits_per_weight, built_stop.nominal_bits, built_stop.bytes)
        return Saved(
            Contender(stop.preset, _defer_opening(squeeze.model_at, stop), *bits),
            partial(squeeze.quantized_at, stop),
        )

    built = [(stop, squeeze.find(stop)) for stop in squeeze.stops[1:]]
    return [partial(at, stop, result) for stop, result in built if result is not None]


def attempt(read: Callable[[], Saved]) -> Callable[[], Saved | WorkbenchError]:
    """The same, once; a mistake is handed back, so that it keeps no other model from being read."""

    @cache
    def tried() -> Saved | WorkbenchError:
        try:
            return read()
        except WorkbenchError as error:
            return error

    return tried


def _defer_opening(open_one: Callable[[Any], LanguageModel], source: Any) -> Callable[[], LanguageModel]:
    """A model that is opened when it is asked for, once."""
    return cache(lambda: open_one(source))
