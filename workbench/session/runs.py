"""The runs of a session: the original, a stop of the squeeze slider, and every quantization. The screen shows one of them."""

from collections.abc import Callable, Generator
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
from workbench.analysis.decisions.squeeze import Stop
from workbench.artifact.quantized_copy import build_packed_copy
from workbench.errors import WorkbenchError
from workbench.models.language_model import LanguageModel
from workbench.quantized import QuantizedModel
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
    """Runs by label, oldest first; `label` is that of the one that is shown. Figures are kept once they were measured."""

    def __init__(self, shared: SharedModel) -> None:
        self.shared = shared
        self.items = {ORIGINAL: Run(ORIGINAL)}
        self.label = ORIGINAL
        self._headlines: dict[str, Headline] = {}
        self._models: dict[str, LanguageModel] = {}

    @property
    def current(self) -> Run:
        """The run that is shown."""
        return self.items[self.label]

    def show(self, label: str) -> Run:
        """Show a run; WorkbenchError for one that there is not."""
        if label not in self.items:
            raise WorkbenchError(f"there is no run {label!r}; there are {', '.join(map(repr, self.items))}.")
        self.label = label
        return self.current

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
            self._headlines.pop(label, None)
            self._models.pop(label, None)
        self.add(label_recipes(model.layers.values(), len(self.shared.model.layer_names)), model, frozen=False)

    def stored(self, label: str) -> Stored | None:
        """What a run stores; None for a stop that is not built."""
        run = self.items[label]
        if run.stop is not None:
            return self.shared.squeeze.find(run.stop)
        return count_stored(self.shared.model, run.quantized)

    def headline(self) -> Headline | None:
        """The figures of the run that is shown, or None where they were not measured yet."""
        run, squeeze = self.current, self.shared.squeeze
        if run.stop is not None:
            return squeeze.find(run.stop)
        if run.quantized is None:
            original = squeeze.original.find()
            return None if original is None else self._headline(run, original, original)
        return self._headlines.get(run.label)

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
            self._models = {run.label: build_packed_copy(self.shared.model, run.quantized.layers, run.quantized.changed_tensors)}
        return self._models[run.label]

    def headline_steps(self, run: Run, prompt: str) -> Generator[Measuring | None, None, Headline]:
        """Measure a run, shown or not: how it reads the evaluation text, and how fast it continues the prompt.

        The figures are kept under its label, unless another run has taken that meanwhile.
        """
        squeeze = self.shared.squeeze
        original = yield from squeeze.original.steps()
        if run.quantized is None:
            return self._headline(run, original, original)
        measured = yield from measure_steps(self.model(run), squeeze.evaluation, prompt)
        headline = self._headline(run, measured, original)
        if self.items.get(run.label) is run:
            self._headlines[run.label] = headline
        return headline
