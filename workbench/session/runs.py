"""The runs of a session: the original, a stop of the squeeze slider, and every quantization.

The screen shows one of them and compares it with another, the original unless one is chosen.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass

from workbench.analysis.decisions.headline import (
    Headline,
    Measured,
    Measuring,
    Stored,
    collect_headline_facts,
    count_stored,
    measure_steps,
)
from workbench.analysis.decisions.pins import label_recipes, make_unique_label
from workbench.analysis.decisions.stops import Stop
from workbench.artifact.quantized_copy import build_packed_copy
from workbench.errors import WorkbenchError
from workbench.jobs import map_steps
from workbench.models.language_model import LanguageModel
from workbench.models.perplexity import PerplexityRatio, compute_perplexity_ratio
from workbench.quantized import QuantizedLayer, QuantizedModel
from workbench.session.shared import SharedModel

ORIGINAL = "original"
SQUEEZED = "squeeze"


@dataclass(frozen=True)
class Run:
    """A model to look at: what was quantized, or the stop that it is; neither for the original.

    Single layers are added to a run that is not `frozen`, one after the other.
    """

    label: str
    quantized: QuantizedModel | None = None
    stop: Stop | None = None
    frozen: bool = True


class Runs:
    """Runs by label, oldest first; `label` is that of the one that is shown, `reference` what it is compared with. Figures are
    kept once they were measured."""

    def __init__(self, shared: SharedModel) -> None:
        self.shared = shared
        self.items = {ORIGINAL: Run(ORIGINAL)}
        self.label = ORIGINAL
        self._beside = ORIGINAL
        self._headlines: dict[str, Headline] = {}
        self._measured: dict[str, Measured] = {}
        self._models: dict[str, LanguageModel] = {}
        self._stops: dict[Stop, QuantizedModel] = {}  # the last two that were read

    @property
    def current(self) -> Run:
        """The run that is shown."""
        return self.items[self.label]

    @property
    def reference(self) -> Run:
        """The run that the one on show is compared with; the original is compared with itself."""
        label = ORIGINAL if self.label == ORIGINAL else self._beside
        return self.items.get(label, self.items[ORIGINAL])

    def show(self, label: str) -> Run:
        """Show a run; WorkbenchError for one that there is not."""
        self.label = self._check(label).label
        return self.current

    def compare_with(self, label: str) -> Run:
        """Compare what is shown with another run; WorkbenchError for one that there is not. The slider moves on from a stop, so
        the stop becomes a run that stays."""
        run = self._check(label)
        if label == SQUEEZED and run.stop is not None:
            run = Run(f"stop at {run.stop.bits:g} bits", stop=run.stop)
            self.items[run.label] = run
        self._beside = run.label
        return run

    def _check(self, label: str) -> Run:
        if label not in self.items:
            raise WorkbenchError(f"there is no run {label!r}; there are {', '.join(map(repr, self.items))}.")
        return self.items[label]

    def show_stop(self, stop: Stop) -> Run:
        """Show a stop of the slider; there is one run for whatever stop it stands at."""
        self.items[SQUEEZED] = Run(SQUEEZED, stop=stop)
        return self.show(SQUEEZED)

    def add(self, label: str, quantized: QuantizedModel, *, frozen: bool = True) -> Run:
        """Show what was just quantized, as a new run."""
        label = make_unique_label(label, self.items)
        self.items[label] = Run(label, quantized, frozen=frozen)
        return self.show(label)

    def add_layers(self, quantized: Callable[[], QuantizedModel]) -> None:
        """Show the layers that were quantized one by one, in the place of the run that they continue; a layer that does not fit
        to the last run over the whole model (WorkbenchError) makes no run."""
        try:
            model = quantized()
        except WorkbenchError:
            return
        for label in [label for label, run in self.items.items() if not run.frozen]:
            del self.items[label]
            for figures in (self._headlines, self._measured, self._models):
                figures.pop(label, None)
        self.add(label_recipes(model.layers.values(), len(self.shared.model.layer_names)), model, frozen=False)

    def stored(self, label: str) -> Stored | None:
        """What a run stores; None for a stop that is not built."""
        run = self.items[label]
        if run.stop is not None:
            return self.shared.squeeze.find(run.stop)
        return count_stored(self.shared.model, run.quantized)

    def layers(self, run: Run) -> Mapping[str, QuantizedLayer]:
        """The quantized layers of a run; see `quantized`."""
        quantized = self.quantized(run)
        return {} if quantized is None else quantized.layers

    def quantized(self, run: Run) -> QuantizedModel | None:
        """What a run stores; None for the original, a stop that is not built, or one of a large model: reading takes long."""
        if run.stop is None:
            return run.quantized
        squeeze = self.shared.squeeze
        if run.stop.is_original or not self.shared.is_small or squeeze.find(run.stop) is None:
            return None
        if run.stop not in self._stops:
            self._stops = {**dict(list(self._stops.items())[-1:]), run.stop: squeeze.quantized_at(run.stop)}
        return self._stops[run.stop]

    def headline(self, run: Run | None = None) -> Headline | None:
        """The figures of a run, of the one that is shown when absent, or None where they were not measured yet."""
        run, squeeze = run or self.current, self.shared.squeeze
        if run.stop is not None:
            return squeeze.find(run.stop)
        if run.quantized is None:
            original = squeeze.original.find()
            return None if original is None else self._headline(run, original, original)
        return self._headlines.get(run.label)

    def is_measured(self, run: Run) -> bool:
        """Whether all figures of a run are known, or are being measured with those of all stops; a stop that is not built has
        none."""
        headline, squeeze = self.headline(run), self.shared.squeeze
        if run.stop is not None:
            return headline is None or headline.fastest is not None or squeeze.running
        return headline is not None

    def _stop_steps(self, stop: Stop) -> Generator[Measuring | None, None, Headline]:
        """Measure the speed of a stop that came with the package; its other figures are known."""
        squeezed = self.shared.squeeze.find(stop)
        if squeezed is None:
            raise WorkbenchError(f"the stop at {stop.bits:g} bits is not built yet; build the stops first.")
        if squeezed.fastest is None:
            yield from map_steps(self.shared.squeeze.speed_steps(squeezed), lambda step: Measuring(*step))
        return self.shared.squeeze.find(stop) or squeezed

    def perplexity_ratio(self) -> PerplexityRatio | None:
        """The perplexity of the run on show over that of the run beside it, paired where both were read here; None where one of
        them was not measured."""
        pair = (self.reference, self.current)
        first, other = (self._read(run) for run in pair)
        if first is not None and other is not None:
            return compute_perplexity_ratio(first.read, other.read)
        before, after = (self.headline(run) for run in pair)
        if before is None or after is None:
            return None
        if self.reference.label == ORIGINAL:
            return after.times
        return PerplexityRatio(after.perplexity / before.perplexity, None, after.text_tokens)

    def _read(self, run: Run) -> Measured | None:
        """How a run read the evaluation text, where that is known document by document."""
        return self.shared.squeeze.original.find() if run.label == ORIGINAL else self._measured.get(run.label)

    def _headline(self, run: Run, measured: Measured, original: Measured) -> Headline:
        counted = count_stored(self.shared.model, run.quantized)
        return Headline(**vars(counted), **collect_headline_facts(measured, original.read))

    def model(self, run: Run) -> LanguageModel:
        """The model of a run; WorkbenchError for a stop that is not built."""
        if run.stop is not None:
            return self.shared.squeeze.model_at(run.stop)
        if run.quantized is None:
            return self.shared.model.language_model()
        if run.label not in self._models:
            latest = dict(list(self._models.items())[-1:])  # the two that are compared stay
            copy = build_packed_copy(self.shared.model, run.quantized.layers, run.quantized.changed_tensors)
            self._models = {**latest, run.label: copy}
        return self._models[run.label]

    def headline_steps(self, run: Run, prompt: str) -> Generator[Measuring | None, None, Headline]:
        """Measure a run, shown or not: how it reads the evaluation text, and how fast it continues the prompt.

        The figures are kept under its label, unless another run has taken that meanwhile.
        """
        squeeze = self.shared.squeeze
        if run.stop is not None and not run.stop.is_original:
            return (yield from self._stop_steps(run.stop))
        original = yield from squeeze.original.steps()
        if run.quantized is None:
            return self._headline(run, original, original)
        measured = yield from measure_steps(self.model(run), squeeze.evaluation, prompt)
        headline = self._headline(run, measured, original)
        if self.items.get(run.label) is run:
            self._headlines[run.label], self._measured[run.label] = headline, measured
        return headline
