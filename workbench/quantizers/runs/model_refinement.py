"""The last stage of a run in sequence: all blocks are trained together on what the whole model predicts."""

import math
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from workbench.calibration import iterate_windows
from workbench.jobs import map_steps
from workbench.memory import spill
from workbench.models.blocks import BlockRow
from workbench.models.written_text import write_text_steps
from workbench.quantized import QuantizedLayer
from workbench.quantizers.contract import Snapshot
from workbench.quantizers.learning.descent import LearningStep
from workbench.quantizers.learning.whole_model import TrainedModel, WholeModel, train_whole_model
from workbench.quantizers.refinements.model import Model
from workbench.quantizers.runs.block_refinement import RefinedBlock, measure_layers
from workbench.quantizers.runs.progress import LayerProgress, Place, TrainingState
from workbench.quantizers.runs.run_checkpoint import Finished

if TYPE_CHECKING:
    from workbench.quantizers.runs.block_sequence import BlockSequence

TEACHER_BYTES = 1 << 31  # of the original's predictions that are kept on disk; above, they are computed when they are needed
KEEPING_SECONDS = 60.0  # between two states of the training that are kept, to resume from
SCALE = 1000  # of the progress over three stages: text is written, the original read, the model trained
WRITING, READING, TRAINING = (0, 100), (100, 150), (150, SCALE)
LogProbabilities = Callable[[int], Tensor]  # float32 [T, V] of a window


def refine_whole_model(
    run: "BlockSequence", layers: Mapping[str, QuantizedLayer], part: Model, position: Place
) -> Generator[LayerProgress, None, tuple[dict[str, QuantizedLayer], Mapping[str, Any]]]:
    """The layers after all blocks were trained together, and what that took and gained.

    Trained are the layers whose recipes ask for it, and gains and biases of norms, which go to the run's `changed_tensors`;
    everything else stays as it is.
    """
    trained = [name for name in layers if isinstance(run.chosen[name].refinement, Model)]
    refined = run.finished.block(run.model.source, trained)
    if refined is None:
        refined = yield from position.follow("refine", WholeModelRun(run, layers, trained).steps(part))
        run.finished.keep_block(run.model.source, refined)
        run.finished.drop_descent(run.model.source)
    run.changed_tensors.update(refined.vectors)
    for name, layer in refined.layers.items():
        yield replace(position, layer=name).progress("done", result=layer)
    return {**layers, **refined.layers}, refined.facts


class TrainingRecord:
    """How long a training has taken, interruptions left out, and what is kept of it now and then to go on from."""

    def __init__(self, finished: Finished, name: str) -> None:
        self.finished, self.name = finished, name
        self.memory, facts = finished.descent(name)
        self.first, self.seconds_before = 0 if self.memory is None else self.memory.step, facts.get("seconds", 0.0)
        self.begin, self.last_kept = time.monotonic(), -math.inf  # the first look is kept at once
        self.held_out: float | None = None

    @property
    def seconds(self) -> float:
        """Of the whole training so far."""
        return self.seconds_before + time.monotonic() - self.begin

    def see(self, step: LearningStep) -> TrainingState:
        """Take note of a step, and keep what there is after a while."""
        self.held_out = self.held_out if step.held_out is None else step.held_out
        if step.memory is not None:
            self.memory = step.memory
            if time.monotonic() - self.last_kept >= KEEPING_SECONDS:
                self.keep()
        pace = (time.monotonic() - self.begin) / max(step.step - self.first, 1)
        return TrainingState(step.step, step.steps, step.loss, self.held_out, pace * (step.steps - step.step))

    def keep(self) -> None:
        """Keep the state of the last look."""
        if self.memory is not None:
            self.finished.keep_descent(self.name, self.memory, {"seconds": self.seconds})
        self.last_kept = time.monotonic()


class WholeModelRun:
    """The quantized model beside the original, to train the layers `trained` of the first on the predictions of the second."""

    def __init__(self, run: "BlockSequence", layers: Mapping[str, QuantizedLayer], trained: Sequence[str]) -> None:
        self.run, self.model, self.layers, self.trained = run, run.model, layers, trained
        self.original, self.quantized = BlockRow(run.model), BlockRow(run.model)
        for name, tensor in run.changed_tensors.items():
            self.quantized.put_tensor(name, tensor)
        for outside in (run.embedding, run.head):
            if outside is not None:
                self.quantized.set_weight(outside, layers[outside].weight())
        if run.embedding is not None and self.model.tied_head is not None:
            self.quantized.set_weight(self.model.tied_head, layers[run.embedding].weight())

    def steps(self, part: Model) -> Generator[Snapshot, None, RefinedBlock]:
        """Write text, run the original on it, train, and measure the layers."""
        begin = time.monotonic()
        written = (yield from self._write(part.written)) if part.written else []
        windows = [*self.run.windows, *written]
        teach = yield from self._read_original(windows)
        record, prepared = TrainingRecord(self.run.finished, self.model.source), time.monotonic() - begin
        result = yield from self._train(self._describe(windows, teach), part, record)
        facts = {
            "trains": part.what,
            "steps": result.steps,
            "step_tokens": part.model_tokens,
            "rate": part.model_rate,
            "tokens": _count_tokens(windows),
            "written_tokens": _count_tokens(written),
            "divergence_before": result.before,
            "divergence": result.after,
            "seconds": round(prepared + record.seconds, 1),
        }
        return replace(self._measure(result), facts=facts)

    def _write(self, tokens: int) -> Generator[Snapshot, None, list[Tensor]]:
        """Windows of text that the original writes."""
        steps = write_text_steps(self.model, tokens, seed=self.run.seed, store=self.run.finished.store)
        furthest = 0

        def tell(count: int) -> Snapshot:
            nonlocal furthest
            furthest = max(furthest, count)  # of documents that end early less is counted later
            return _tell(WRITING, furthest, tokens, "writing text to train on", "tokens")

        text = yield from map_steps(steps, tell)
        return list(iterate_windows(self.model, text, tokens, self.run.seed))

    def _train(self, target: WholeModel, part: Model, record: TrainingRecord) -> Generator[Snapshot, None, TrainedModel]:
        """The training, which can be stopped at any step: its last look is kept."""
        training = train_whole_model(
            target,
            part.model_schedule,
            norms=part.what != "scales",
            codes=part.what == "codes",
            every=part.every,
            tokens=part.model_tokens,
            seed=self.run.seed,
            recompute=self.model.streams,
            start=record.memory,
        )

        def follow(step: LearningStep) -> Snapshot:
            state = record.see(step)
            low, high = TRAINING
            return Snapshot("refine", round(low + (high - low) * step.fraction), SCALE, {"step": step, "stage": state})

        try:
            return (yield from map_steps(training, follow))
        except BaseException:  # cancelled, interrupted or failed: whoever asks again goes on from here
            record.keep()
            raise

    def _read_original(self, windows: Sequence[Tensor]) -> Generator[Snapshot, None, LogProbabilities]:
        """What the original predicts on each window: kept on disk where that is not too much."""
        weights = self._keep_weights(self.original.read_weights)

        @torch.no_grad()
        def predict(index: int) -> Tensor:
            return self.original.compute_logits(windows[index], weights, {}).log_softmax(-1)

        first = predict(0)
        if _count_tokens(windows) * first.shape[1] * 2 > TEACHER_BYTES:
            return predict
        predictions = []
        for index in range(len(windows)):
            predictions.append(spill(predict(index).half()))
            yield _tell(READING, index + 1, len(windows), "reading the original's predictions", "windows")
        return lambda index: predictions[index].float()

    def _keep_weights(self, read: Callable[[int], dict[str, Tensor]]) -> Callable[[int], Mapping[str, Tensor]]:
        """The same function, with its results kept where a model fits into memory."""
        if self.model.streams:
            return read
        cache: dict[int, Mapping[str, Tensor]] = {}

        def look_up(index: int) -> Mapping[str, Tensor]:
            if index not in cache:
                cache[index] = read(index)
            return cache[index]

        return look_up

    def _read_fixed(self, index: int) -> dict[str, Tensor]:
        """The weights of a block that are not trained: of its quantized layers, and of those that nothing changes."""
        weights = {}
        for name in self.quantized.layers[index]:
            if name not in self.trained:
                weight = self.layers[name].weight() if name in self.layers else self.model.weight(name).float()
                weights[f"{self.quantized.within(index, name)}.weight"] = self.model.layer(name).orient(weight)
        return weights

    def _describe(self, windows: Sequence[Tensor], teach: LogProbabilities) -> WholeModel:
        """What is trained, and on what."""
        row = self.quantized
        inside = [[*layers, *routers] for layers, routers in zip(row.layers, row.routers, strict=True)]
        blocks = [[name for name in names if name in self.trained] for names in inside]
        return WholeModel(
            row.compute_logits,
            teach,
            windows,
            trees={name: self.layers[name].packed for name in self.trained},
            weights={name: self.model.weight(name).float() for name in self.trained},
            blocks=blocks,
            fixed=self._keep_weights(self._read_fixed),
            names={name: f"{row.within(index, name)}.weight" for index, names in enumerate(blocks) for name in names},
            orient={name: self.model.layer(name).orient for name in self.trained},
            vectors={index: row.vectors(index) for index in range(len(row.names))},
            outside=row.outside_vectors(),
        )

    def _measure(self, result: TrainedModel) -> RefinedBlock:
        """The trained layers with their errors on the calibration text, and the vectors by the module's names."""
        row, run = self.quantized, self.run
        vectors = {f"{row.names[index]}.{name}": v for index, named in result.vectors.items() for name, v in named.items()}
        vectors |= result.outside
        changed = {name: vector for name, vector in vectors.items() if not torch.equal(vector, self._read_before(name))}
        for name, vector in changed.items():
            row.put_tensor(name, vector)
        layers = {name: replace(self.layers[name], packed=result.trees[name]) for name in self.trained}
        now, measured = {**self.layers, **layers}, dict[str, QuantizedLayer]()
        text, original = row.start(run.windows), self.original.start(run.windows)
        for index in row.visit(text, original):
            with row.block(index) as block, self.original.block(index) as before:
                names = [*row.layers[index], *row.routers[index]]
                for name in names:
                    if name in now:
                        row.set_weight(name, now[name].weight())
                block_run = run.run(index, block, text.calls)
                block_run = replace(
                    block_run, original_calls=original.calls, original=dict(before.named_parameters()), repairs=run.repairs
                )
                refined = {name: layers[name] for name in names if name in layers}
                measured |= measure_layers(block_run, refined, {name: self.model.weight(name).float() for name in refined})
                original.advance(block_run.original_outputs())
                text.advance(block_run.outputs())
        return RefinedBlock({**layers, **measured}, changed)

    def _read_before(self, name: str) -> Tensor:
        """A vector as it was before training."""
        return self.run.changed_tensors[name] if name in self.run.changed_tensors else self.model.tensor(name)


def _count_tokens(windows: Sequence[Tensor]) -> int:
    """Tokens of windows `[1, T]`."""
    return sum(window.shape[1] for window in windows)


def _tell(span: tuple[int, int], done: int, total: int, what: str, unit: str) -> Snapshot:
    """How far a stage is that takes `span` of the progress."""
    low, high = span
    done = min(done, total)
    return Snapshot("refine", round(low + (high - low) * done / total), SCALE, {"stage": f"{what}: {done:,} of {total:,} {unit}"})
