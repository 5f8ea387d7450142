"""Session: what one visitor has open (model, choice, results), with undo. It knows nothing of any screen.

A result is kept under the content that made it (weights, layer, recipe, calibration) and is shown for nothing else.
"""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench import presets
from workbench.analysis.decisions.pins import Pins, format_recipe
from workbench.analysis.decisions.stops import Stop
from workbench.analysis.method.run_trace import Trace
from workbench.analysis.predictions.divergence import Divergence
from workbench.analysis.predictions.generation import Writing, write_together
from workbench.analysis.predictions.generation_speed import Running, measure_generation_steps
from workbench.analysis.weights.axis_meaning import carry_marks
from workbench.analysis.weights.cached_tables import Portrait, list_packed_content
from workbench.artifact.quantized_copy import build_packed_copy
from workbench.errors import WorkbenchError
from workbench.jobs import watch_steps
from workbench.json_value import wrap_value
from workbench.models import ModelHandle
from workbench.models.language_model import LanguageModel
from workbench.models.text import text
from workbench.quantized import QuantizedLayer, QuantizedModel
from workbench.quantizers import LayerProgress, quantize_model_steps, quantize_steps
from workbench.quantizers.contract import Snapshot
from workbench.quantizers.pipeline import check_recipe, needs_text
from workbench.quantizers.runs.quantize_layer import quantize_weight_steps
from workbench.recipe import Recipe
from workbench.session.choice import Choice, Selection
from workbench.session.combine import combine_layers, measure_layer_effect
from workbench.session.comparison import ComparedRuns
from workbench.session.history import History, Kind
from workbench.session.layer_table import tabulate_layers
from workbench.session.painting import Painting
from workbench.session.preview import NO_ERRORS, Preview, choose_preview_rows, compute_row_errors
from workbench.session.runs import Runs
from workbench.session.shared import CALIBRATION_TOKENS, Heard, SharedModel
from workbench.store import Store, compute_key

if TYPE_CHECKING:
    import pandas as pd

VERSION = 1


class Session:
    """One visitor's work on one model.

    `select`, `use` and `ask` change the choice and can be undone; `quantize_steps` and `quantize_model_steps` are generators
    for a `Job`, and what they return is kept in `results` and `quantized_model`.
    """

    def __init__(self, model: ModelHandle | SharedModel, *, recipe: Recipe | None = None) -> None:
        self.shared = model if isinstance(model, SharedModel) else SharedModel(model)
        self.model = self.shared.model
        self.results: dict[str, QuantizedLayer] = {}
        self.traces: dict[str, Trace] = {}
        self.quantized_model: QuantizedModel | None = None
        self.pins, self.runs = Pins(), Runs(self.shared)
        self._outside_calibrations: list[dict[str, Any]] = []  # how models were calibrated that came from elsewhere
        self._preview: Preview | None = None
        self._decoded: list[tuple[QuantizedLayer, Portrait]] = []
        self.measured: dict[str, Mapping[str, float]] = {}
        first = Choice(self.model.layer_names[0], recipe or presets.recipe("rtn", bits=4))
        self.history = History(first)
        self._carried = (first, "")
        self.compared, self.painting = ComparedRuns(self), Painting(self)

    @property
    def choice(self) -> Choice:
        """Layer, recipe and prompt as they are now."""
        return self.history.choice

    @property
    def layer(self) -> str:
        """The selected layer."""
        return self.choice.layer

    @property
    def recipe(self) -> Recipe:
        """The recipe on the bench."""
        return self.choice.recipe

    @property
    def selection(self) -> Selection:
        """What is marked: layers, channels, rows, codes, tokens."""
        return self.choice.selection

    def select(self, layer: str) -> None:
        """Select a layer; ModelError for one that does not exist.

        Marked channels and rows stay with what they stand for, as columns or rows of the new layer; `carried` says what became of
        them. Marked codes belong to one layer.
        """
        before, after, marked = self.model.layer(self.layer), self.model.layer(layer), self.selection
        if before == after:
            return
        carried_marks = carry_marks(before, after, {"channels": marked.channels, "rows": marked.rows})
        selection = marked.replace(channels=carried_marks.channels, rows=carried_marks.rows, codes=())
        self.history.take(Kind.SELECT, replace(self.choice, layer=layer, selection=selection))
        self._carried = (self.choice, carried_marks.words)

    @property
    def carried(self) -> str:
        """What became of the marks when the layer was selected, in words; empty once anything else was chosen."""
        return self._carried[1] if self._carried[0] == self.choice else ""

    def use(self, recipe: Recipe) -> None:
        """Put a recipe on the bench."""
        self.history.take(Kind.USE, replace(self.choice, recipe=recipe))

    def ask(self, prompt: str) -> None:
        """Choose the prompt that both models continue."""
        self.history.take(Kind.ASK, replace(self.choice, prompt=prompt))

    def mark(self, **changes: Iterable[str] | Iterable[int]) -> None:
        """Mark layers, channels, rows, codes or tokens, as `mark(channels=[3, 17])`; an empty list clears them.

        ModelError for a layer that does not exist, WorkbenchError for a channel or row that the selected layer does not have.
        """
        marked = self.selection.replace(**{name: tuple(marks) for name, marks in changes.items()})
        self.history.take(Kind.MARK, self.check_choice(replace(self.choice, selection=marked)))

    def check_choice(self, choice: Choice) -> Choice:
        """The same choice, if this model has what it names; ModelError or WorkbenchError otherwise."""
        for name in (choice.layer, *choice.selection.layers):
            self.model.layer(name)
        layer, marked = self.model.layer(choice.layer), choice.selection
        for name, marks, limit in (("channels", marked.channels, layer.cols), ("rows", marked.rows, layer.rows)):
            if max(marks, default=0) >= limit:
                raise WorkbenchError(f"{name} holds {max(marks)}; {layer.name} has {limit} {name}, 0 to {limit - 1}.")
        return choice

    def check(self, recipe: Recipe) -> None:
        """Raise what is wrong with a recipe for the selected layer before anything runs: parts and widths that do not fit."""
        cols = self.model.layer(self.layer).cols
        check_recipe(recipe, torch.empty(0))
        for coder in recipe.coders:
            coder.span(cols)

    def undo(self) -> None:
        """Back to the choice before; nothing happens at the first one."""
        self.history.undo()

    def redo(self) -> None:
        """Forward again after an undo."""
        self.history.redo()

    def go(self, step: int) -> None:
        """To any step of the history, by its number."""
        self.history.go(step)

    @property
    def can_undo(self) -> bool:
        """Whether there is a choice before this one."""
        return self.history.can_undo

    @property
    def can_redo(self) -> bool:
        """Whether an undo can be taken back."""
        return self.history.can_redo

    @property
    def result(self) -> QuantizedLayer | None:
        """What the recipe on the bench made of the selected layer, alone or in a run over the whole model, or would make of it
        as a preview of the whole layer shows; or None."""
        keys = self._keys()
        shown = self.preview.result if self.preview is not None and self.preview.is_whole else None
        return next((result for name, result in reversed(self.results.items()) if name.partition("/")[0] in keys), shown)

    @property
    def trace(self) -> Trace | None:
        """What the run that makes, or made, this result has told; None where there was none."""
        keys = self._keys()
        return next((self.traces[result_key] for result_key in reversed(self.traces) if result_key in keys), None)

    def results_of(self, layer: str) -> list[QuantizedLayer]:
        """Every result for one layer, in the order they were made."""
        return [result for result in self.results.values() if result.name == layer]

    def _key(self, layer: str, recipe: Recipe, *, alone: bool, calibration: Any = CALIBRATION_TOKENS) -> str:
        """A layer quantized alone, the same layer in a whole model's run, and one calibrated otherwise are different results."""
        return compute_key(self.model.fingerprint, layer, recipe.to_dict(), calibration, alone)

    def _keys(self) -> list[str]:
        """Where results of the selected layer and the recipe on the bench are."""
        outside = [self._key(self.layer, self.recipe, alone=False, calibration=one) for one in self._outside_calibrations]
        return [*(self._key(self.layer, self.recipe, alone=alone) for alone in (True, False)), *outside]

    def quantize_steps(self) -> Generator[Snapshot | Heard, None, QuantizedLayer]:
        """Quantize the selected layer with the recipe on the bench."""
        layer, recipe, start = self.layer, self.recipe, self.history.at
        result = yield from self._layer_steps(layer, recipe)
        self._keep(recipe, result, alone=True)
        self.runs.add_layers(self.quantized)
        self.compared.bench = recipe
        self.history.record(Kind.QUANTIZE, start, f"quantized this layer: {result.bits_per_weight:.2f} stored bits")
        return result

    def _layer_steps(self, layer: str, recipe: Recipe) -> Generator[Snapshot | Heard, None, QuantizedLayer]:
        stats = yield from self.shared.stats_steps()
        with self._traced(recipe, [layer], alone=True) as (trace,):
            steps = quantize_steps(self.model, layer, recipe, stats)
            return (yield from watch_steps(steps, trace.see))

    def preview_steps(self) -> Generator[Snapshot | Heard, None, Preview]:
        """What the recipe on the bench would make of the selected layer, or of some rows of a large one.

        It is kept as `preview`, apart from the results; WorkbenchError where the calibration text has yet to be read, which takes
        long for a large model.
        """
        layer, recipe = self.layer, self.recipe
        if not self.can_preview:
            raise WorkbenchError("previews start after calibration: press Quantize this layer.")
        rows, total = choose_preview_rows(self.model.layer(layer)), self.model.layer(layer).rows
        if len(rows) == total:
            result, errors = (yield from self._layer_steps(layer, recipe)), NO_ERRORS
        else:
            some, stats = self.shared.weight(layer)[list(rows)], (yield from self.shared.stats_steps())
            result = yield from quantize_weight_steps(some, self.model.layer(layer), recipe, stats, measured=False)
            errors = compute_row_errors(some, result)
        self._preview = Preview(self._key(layer, recipe, alone=True), result, rows, total, errors)
        return self._preview

    @property
    def can_preview(self) -> bool:
        """Whether a preview is a matter of seconds."""
        return self.shared.is_calibrated or self.shared.is_small

    @property
    def preview(self) -> Preview | None:
        """The preview of the recipe on the bench on the selected layer, where there is one."""
        result_key = self._key(self.layer, self.recipe, alone=True)
        return self._preview if self._preview is not None and self._preview.result_key == result_key else None

    def quantize_model_steps(self) -> Generator[LayerProgress | Heard, None, QuantizedModel]:
        """Quantize every layer with the recipe on the bench, block by block in sequence where it needs calibration."""
        recipe, names, start = self.recipe, self.model.layer_names, self.history.at
        if needs_text(recipe):
            store = Store() if recipe.refinement.name == "model" else None  # training of minutes goes on where it was stopped
            steps = quantize_model_steps(self.model, recipe, text=text("calibration"), tokens=CALIBRATION_TOKENS, store=store)
        else:
            steps = quantize_model_steps(self.model, recipe, (yield from self.shared.stats_steps()))
        with self._traced(recipe, names, alone=False) as traces:
            named = list(zip(names, traces, strict=True))

            def see(progress: LayerProgress) -> None:
                """A transform may be learned for a whole block: its steps belong to all layers inside."""
                for name, trace in named:
                    if progress.snapshot is not None and f"{name}.".startswith(f"{progress.layer}."):
                        trace.see(progress.snapshot)

            quantized_model = yield from watch_steps(steps, see)
        for layer in quantized_model.layers.values():
            self._keep(recipe, layer, alone=False)
        self.quantized_model = quantized_model
        self.runs.add(format_recipe(recipe), quantized_model)
        self.compared.bench = recipe
        self.history.record(
            Kind.QUANTIZE_MODEL, start, f"quantized the whole model: {quantized_model.bits_per_weight:.2f} stored bits"
        )
        return quantized_model

    @contextmanager
    def _traced(self, recipe: Recipe, layers: Sequence[str], *, alone: bool) -> Iterator[list[Trace]]:
        """A new trace for each layer; a run that does not end leaves the traces of the one before it."""
        result_keys = [self._key(layer, recipe, alone=alone) for layer in layers]
        before = {name: self.traces.pop(name) for name in result_keys if name in self.traces}
        self.traces |= {name: Trace() for name in result_keys}
        try:
            yield [self.traces[name] for name in result_keys]
        except BaseException:
            for name in result_keys:
                del self.traces[name]
            self.traces |= before
            raise

    def _keep(self, recipe: Recipe, result: QuantizedLayer, *, alone: bool, calibration: Any = CALIBRATION_TOKENS) -> None:
        """Store a result as the latest."""
        result_key = self._key(result.name, recipe, alone=alone, calibration=calibration)
        self.results.pop(result_key, None)
        self.results[result_key] = result

    def layer_table(self, *, wait: bool = True) -> "pd.DataFrame":
        """The model's layers with what is known of their weights and results, see `tabulate_layers`, and what was `measured`."""
        shown, beside = self.compared.layers(), self.compared.reference_layers()
        return tabulate_layers(self.shared, shown, beside, self.measured, wait=wait)

    def adopt(self, layer: QuantizedLayer) -> None:
        """Take a result that was changed by hand as the latest of the selected layer; what it was made from stays too."""
        if self.result is None or layer.name != self.layer:
            raise WorkbenchError(f"{layer.name} has no result that could be changed: press Quantize this layer.")
        result_key = next((key for key, result in reversed(self.results.items()) if result is self.result), self._keys()[0])
        edited = f"{result_key.partition('/')[0]}/{' + '.join(layer.edits)}"
        self.results.pop(edited, None)
        self.results[edited] = layer

    def latest(self) -> Mapping[str, QuantizedLayer]:
        """The last result of each layer."""
        return {result.name: result for result in self.results.values()}

    def original(self) -> Tensor:
        """The selected layer's weight, float32 `[rows, cols]`; it is not to be changed."""
        return self.shared.weight(self.layer).float()

    def portrait(self) -> Portrait:
        """What is known of the selected layer's weight."""
        layer, shape = self.layer, self.model.layer(self.layer)
        return Portrait((shape.rows, shape.cols), lambda: (self.model.fingerprint, layer), lambda: self.shared.weight(layer))

    def portrait_of(self, result: QuantizedLayer) -> Portrait:
        """What is known of a result's weights; those of the last two results asked for stay decoded."""
        portrait = next((portrait for other, portrait in self._decoded if other is result), None)
        if portrait is None:
            shape = (result.packed.rows, result.packed.cols)
            portrait = Portrait(shape, lambda: list_packed_content(result.packed), result.weight)
            self._decoded = [*self._decoded[-1:], (result, portrait)]
        return portrait

    def quantized(self) -> QuantizedModel:
        """Everything that is quantized, each layer as its latest result, with what the whole model's run changed beside them;
        WorkbenchError where nothing is, or where they do not fit together."""
        layers = self.latest()
        if not layers:
            raise WorkbenchError("nothing is quantized yet: press Quantize this layer, or Quantize the whole model.")
        latest_keys = {result.name: name.partition("/")[0] for name, result in self.results.items()}
        alone = [name for name, layer in layers.items() if latest_keys[name] == self._key(name, layer.recipe, alone=True)]
        return combine_layers(self.shared, layers, self.quantized_model, alone)

    def effect(self, result: QuantizedLayer, edited: QuantizedLayer | None = None) -> Divergence:
        """What a result does alone in the model, on the evaluation text; or what was made of it by hand, in its place."""
        return measure_layer_effect(self.shared, result, self.quantized_model, edited)

    def packed_model(self) -> LanguageModel:
        """The model with every quantized layer packed, each as its latest result."""
        quantized = self.quantized()
        return build_packed_copy(self.model, quantized.layers, quantized.changed_tensors)

    def write(self, tokens: int = 80) -> Iterator[Writing]:
        """The two models that are compared continue the prompt, token by token; yields what is there after every step."""
        return write_together(*self.compared.models(), self.choice.prompt, tokens)

    def running(self) -> Generator[int, None, list[Running]]:
        """Speed and memory of the two as they continue the prompt; yields after every turn."""
        return measure_generation_steps(self.compared.models(), self.choice.prompt)

    def pin_model(self) -> Generator[float, None, str]:
        """Pin the model with every quantized layer as its latest result; measures it on the evaluation text."""
        model_layers = self.quantized()
        return self.pins.pin_model(
            self.model, model_layers.layers, model_layers.changed_tensors, text("evaluation"), self.choice.prompt
        )

    def take(self, quantized_model: QuantizedModel) -> None:
        """Take up a model that was quantized elsewhere: its layers become the latest results, and found under their recipes."""
        calibration = dict(quantized_model.calibration)
        if calibration not in self._outside_calibrations:
            self._outside_calibrations.append(calibration)
        for layer in quantized_model.layers.values():
            self._keep(layer.recipe, layer, alone=False, calibration=calibration)
        self.quantized_model = quantized_model

    def show_stop(self, stop: Stop) -> None:
        """Show a stop of the slider."""
        self.runs.show_stop(stop)
        self.compared.bench = self.recipe

    def show_run(self, label: str) -> None:
        """Show one of `runs`: its layers become the latest results. WorkbenchError for one that there is not."""
        run = self.runs.show(label)
        self.compared.bench = self.recipe
        if run.quantized is not None and run.quantized is not self.quantized_model:
            self.take(run.quantized)

    def code(self) -> str:
        """Python that repeats the current choice in a notebook."""
        lines = (
            f"import workbench as wb\nmodel = {self.model.code()}",
            f'stats = wb.calibrate(model, wb.text("calibration"), tokens={CALIBRATION_TOKENS})',
            f"recipe = {self.recipe.code()}",
            f"result = wb.quantize(model, {self.layer!r}, recipe, stats=stats)",
        )
        return "\n".join(lines)

    def state(self) -> dict[str, Any]:
        """The choice as plain JSON values; results are not part of it, they can be made again."""
        return {"version": VERSION, **self.choice.to_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take up a saved choice, as a step that can be undone."""
        value = wrap_value(state, "the choice")
        value.check_version("session", VERSION)
        self.history.take(Kind.RESTORE, self.check_choice(Choice.read(value)))
