"""The whole model at a series of sizes, from its own to below one bit a weight: packed models, built once and cached on disk."""

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from workbench import subprocess_job
from workbench.analysis.decisions import shipped_stops
from workbench.analysis.decisions.headline import (
    Headline,
    collect_headline_facts,
    collect_running_facts,
    count_stored,
    count_stored_files,
    describe_machine,
    measure_steps,
)
from workbench.analysis.decisions.original import PROMPT, Original
from workbench.analysis.decisions.stops import Stop, choose_stops
from workbench.analysis.predictions.generation_speed import measure_generation_steps
from workbench.artifact import is_artifact, save
from workbench.artifact.loading import read_quantized_model
from workbench.artifact.quantized_copy import build_packed_copy
from workbench.atomic import discard
from workbench.bench.cpu import set_thread_count
from workbench.errors import ArtifactError, ModelError, OutputError, WorkbenchError
from workbench.job_record import record_job
from workbench.jobs import Job, Status, map_steps, run_steps
from workbench.kernels.matmul.packed_linear import warm_up
from workbench.models import ModelHandle
from workbench.models.language_model import LanguageModel
from workbench.models.text import Text, text
from workbench.outputs import check_file
from workbench.quantized import QuantizedModel
from workbench.quantizers import quantize_model_steps
from workbench.quantizers.pipeline import needs_text
from workbench.seeds import check_seed
from workbench.store import Store, compute_key

if TYPE_CHECKING:
    import pandas as pd

VERSION, FACTS_VERSION = 1, 3
SPEED_COST = 1.0  # of measuring the speed of a stop, in the unit of the costs below
CALIBRATION_TOKENS = 4096  # of the calibration text
READY_BYTES = 1 << 28  # stops stay in memory up to this size; the last two always do

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Squeezed(Headline):
    """A stop that is built, with its figures; `bytes` is the size of its packed.safetensors."""

    stop: Stop


@dataclass(frozen=True)
class SqueezeStep:
    """Where building stands: at which stop, what happens there, and the share of the missing stops' cost that is done."""

    stop: Stop
    doing: str
    fraction: float


class Squeeze:
    """Build one model at a row of sizes, from 16 bits a weight to below one, each a real packed model that is kept on disk.

    What a visitor or an earlier run has built is found in the store. A stop lies there as a folder that `wb.load` opens, under
    the hash of weights, recipe, calibration, seed and version; its layers are kept one by one while it is built, so that a killed
    run goes on. The built-in model's stops come with the package (see `shipped_stops`); only their speed is measured here. The
    first stop is the model itself, of which no copy is saved.

    Args:
        model: A model from `wb.open_model`.
        store: Where stops are kept, the user's store when absent.
        stops: The sizes with their presets, from 16 bits down; `choose_stops` where absent.
        calibration: A text to calibrate on, the built-in one when absent.
        evaluation: A text to measure with, the built-in one when absent.
        tokens: Tokens of the calibration text.
        seed: Draws the order of its documents.
        threads: Threads that quantizing uses, as many as torch does when absent; speed is always measured with those.

    Raises:
        ModelError: For a seed out of range.

    Example:
        >>> import tempfile
        >>> import workbench as wb
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     squeeze = wb.Squeeze(wb.open_model("builtin"), wb.Store(folder))
        ...     squeeze.complete, [stop.bits for stop in squeeze.stops][:4]
        (True, [16, 8, 6, 4])
    """

    def __init__(
        self,
        model: ModelHandle,
        store: Store | None = None,
        *,
        stops: Sequence[Stop] | None = None,
        calibration: Text | None = None,
        evaluation: Text | None = None,
        tokens: int = CALIBRATION_TOKENS,
        seed: int = 0,
        threads: int | None = None,
    ) -> None:
        self.model, self.store, self.threads = model, store or Store(), threads
        self.calibration, self.evaluation = calibration or text("calibration"), evaluation or text("evaluation")
        self.stops = choose_stops(model) if stops is None else tuple(stops)
        self.tokens, self.seed = tokens, check_seed(seed, ModelError)
        self.original = Original(model, self.evaluation, self.store)
        self.job: Job[list[Squeezed]] | None = None
        self._keys: dict[Stop, str] = {}
        self._squeezed: dict[Stop, Squeezed] = {}
        self._damaged: set[Stop] = set()  # stops of the package that are not what was shipped: they are built in the store
        self._ready: OrderedDict[Stop, LanguageModel] = OrderedDict()
        self._lock = threading.RLock()

    def key(self, stop: Stop) -> str:
        """The hash of everything that a stop is made of."""
        if stop not in self._keys:
            calibration = [self.calibration.fingerprint, self.tokens, self.seed] if needs_text(stop.recipe) else []
            self._keys[stop] = compute_key("squeeze", VERSION, self.model.fingerprint, stop.recipe.to_dict(), calibration)
        return self._keys[stop]

    def folder(self, stop: Stop) -> Path:
        """Where the packed model of a stop lies, or will: in the package, or in the store; the model itself for the original."""
        if stop.is_original:
            return Path(self.model.folder)
        return self._shipped_folder(stop) or self.store.model(self.key(stop))

    def _shipped_folder(self, stop: Stop) -> Path | None:
        return None if stop in self._damaged else shipped_stops.find_folder(self.key(stop))

    def find(self, stop: Stop) -> Squeezed | None:
        """What is known of a stop, or None where it is not built yet."""
        if stop not in self._squeezed:
            entry = self.store.get(self._entry_key(stop))
            facts = None if entry is None else entry.facts
            if facts is None and stop not in self._damaged:
                facts = shipped_stops.read_facts(self.key(stop), self.evaluation)
            if facts is None or not (stop.is_original or is_artifact(self.folder(stop))):
                return None
            squeezed = Squeezed(stop=stop, **facts)
            if squeezed.fastest is None:  # another process may be measuring its speed
                return squeezed
            self._squeezed[stop] = squeezed
        return self._squeezed[stop]

    def built_stops(self) -> list[Squeezed]:
        """All stops that are built."""
        return [squeezed for squeezed in map(self.find, self.stops) if squeezed is not None]

    @property
    def running(self) -> bool:
        """Whether stops are being built, or their speed measured."""
        return self.job is not None and self.job.status is Status.RUNNING

    @property
    def complete(self) -> bool:
        """Whether every stop is built."""
        return all(self.find(stop) is not None for stop in self.stops)

    @property
    def measured(self) -> bool:
        """Whether every stop is built, and its speed is known on this machine."""
        return all((squeezed := self.find(stop)) is not None and squeezed.fastest is not None for stop in self.stops)

    def start(self) -> Job[list[Squeezed]]:
        """The job that builds what is missing, in a process of its own: one for all visitors, also while it runs."""
        with self._lock:
            if self.job is None or not self.running:
                self.job = Job(self.steps_apart, "building the stops")
                record_job(self.job)
                self.job.start()
            return self.job

    def steps_apart(self) -> Generator[SqueezeStep | None, None, list[Squeezed]]:
        """The same as `steps`, in a process of its own that is less urgent than others; None until it has begun.

        No other process has the weights of a model that was opened from memory: its stops are built in this one.
        """
        if self.model.in_memory:
            return (yield from self.steps())
        for step in subprocess_job.run_module_steps("workbench.analysis.decisions.squeeze_worker", self.described()):
            yield None if step is None else SqueezeStep(self.stops[step["stop"]], step["doing"], step["fraction"])
        return self.built_stops()

    def described(self) -> dict[str, Any]:
        """What makes this one, as JSON values, and the number of threads that speed is measured with."""
        return {
            "model": self.model.location,
            "store": str(self.store.folder),
            "limit_bytes": self.store.limit_bytes,
            "stops": [asdict(stop) for stop in self.stops],
            "calibration": [self.calibration.name, self.calibration.documents],
            "evaluation": [self.evaluation.name, self.evaluation.documents],
            "tokens": self.tokens,
            "seed": self.seed,
            "threads": torch.get_num_threads(),
        }

    def steps(self) -> Generator[SqueezeStep, None, list[Squeezed]]:
        """Build what is missing, from 16 bits down, and measure the speed of what came with the package."""
        squeezed_stops = {stop: self.find(stop) for stop in self.stops}
        costs = {
            stop: stop.cost if squeezed is None else SPEED_COST
            for stop, squeezed in squeezed_stops.items()
            if squeezed is None or squeezed.fastest is None
        }
        if costs:
            self.check_store()
        total_cost, done = sum(costs.values()), 0.0
        for stop, cost in costs.items():
            squeezed = squeezed_stops[stop]
            for doing, share in self._build(stop) if squeezed is None else self.speed_steps(squeezed):
                yield SqueezeStep(stop, doing, (done + share * cost) / total_cost)
            done += cost
        return self.built_stops()

    def check_store(self) -> None:
        """Raise OutputError, before any work, where the store cannot take what is built."""
        try:
            check_file(self.store.folder / "models" / "stop")
        except OutputError as error:
            raise OutputError(
                f"the stops are stored in the cache folder, but {error} Set WORKBENCH_CACHE to use another folder."
            ) from error

    def model_at(self, stop: Stop) -> LanguageModel:
        """The running model of a built stop, which shares all other memory with the original.

        WorkbenchError for a stop that is not built; ArtifactError for a damaged one, which is then forgotten.
        """
        with self._lock:
            if stop not in self._ready:
                self._ready[stop] = self._read(stop)
            self._ready.move_to_end(stop)
            layer_bytes = 4 * sum(self.model.layers()["parameters"])
            while len(self._ready) > max(2, READY_BYTES // layer_bytes):
                self._ready.popitem(last=False)
            return self._ready[stop]

    def quantized_at(self, stop: Stop) -> QuantizedModel:
        """What a built stop stores; errors as in `model_at`."""
        if stop.is_original:
            return run_steps(quantize_model_steps(self.model, stop.recipe))
        folder = self.folder(stop)
        if not is_artifact(folder):
            self._squeezed.pop(stop, None)
            raise WorkbenchError(f"the stop at {stop.bits:g} bits is not built yet; build the stops first.")
        try:
            return read_quantized_model(folder)
        except ArtifactError as error:
            self._forget(stop, error)
            raise

    def _forget(self, stop: Stop, error: ArtifactError) -> None:
        """A damaged stop counts as not built: it is removed from the store, or no longer taken from the package."""
        log.warning("the stop at %g bits is damaged (%s) and is rebuilt on request", stop.bits, error)
        if self._shipped_folder(stop) is None:
            discard(self.folder(stop))
        else:
            self._damaged.add(stop)
        self._squeezed.pop(stop, None)

    def _is_sound(self, stop: Stop) -> bool:
        """Whether a stop was saved completely and is undamaged; what else lies in its place is forgotten."""
        if not os.path.lexists(self.folder(stop)):
            return False
        try:
            read_quantized_model(self.folder(stop))
        except ArtifactError as error:
            self._forget(stop, error)
            return False
        return True

    def _read(self, stop: Stop) -> LanguageModel:
        if stop.is_original:
            return self.model.language_model()
        quantized = self.quantized_at(stop)
        lm = build_packed_copy(self.model, quantized.layers, quantized.changed_tensors)
        warm_up(lm.module)
        return lm

    def _build(self, stop: Stop) -> Generator[tuple[str, float], None, None]:
        """Quantize, save and measure one stop; yields what it does and its share."""
        yield "quantizing", 0.0
        if stop.is_original:
            measured = yield from map_steps(self.original.steps(), lambda _: ("measuring the original", 0.5))
            stored = asdict(count_stored(self.model, None))
        else:
            yield from self.store_steps(stop)
            steps = measure_steps(self.model_at(stop), self.evaluation, PROMPT)
            measured = yield from map_steps(steps, lambda step: (step.doing, 0.8 + 0.2 * step.fraction))
            stored = asdict(count_stored_files(self.quantized_at(stop), self.folder(stop)))
        self._record(stop, {**stored, **collect_headline_facts(measured, run_steps(self.original.steps()).read)})

    def store_steps(self, stop: Stop) -> Generator[tuple[str, float], None, None]:
        """Quantize and save one stop, unless it lies there undamaged; yields what it does and its share."""
        if not self._is_sound(stop):
            quantized_model = yield from self._quantize(stop)
            save(quantized_model, self.folder(stop), self.model)

    def speed_steps(self, squeezed: Squeezed) -> Generator[tuple[str, float], None, None]:
        """Measure how fast a stop writes here, whose other figures came with the package; yields what it does and its share."""
        yield "measuring its speed", 0.0
        steps = measure_generation_steps([self.model_at(squeezed.stop)], PROMPT)
        (running,) = yield from map_steps(steps, lambda _: ("measuring its speed", 0.5))
        facts = {name: value for name, value in asdict(squeezed).items() if name != "stop"}
        self._record(squeezed.stop, {**facts, **collect_running_facts(running)})

    def _record(self, stop: Stop, facts: dict[str, Any]) -> None:
        self.store.put(self._entry_key(stop), {}, facts, kind="stop", what=f"{self.model.source} by {stop.preset}")
        self._squeezed[stop] = Squeezed(stop=stop, **facts)

    def _quantize(self, stop: Stop) -> Generator[tuple[str, float], None, QuantizedModel]:
        options: dict[str, Any] = {}
        if needs_text(stop.recipe):
            options = {"text": self.calibration, "tokens": self.tokens, "seed": self.seed, "store": self.store}
        steps = quantize_model_steps(self.model, stop.recipe, **options)
        with set_thread_count(self.threads or torch.get_num_threads()):
            return (yield from map_steps(steps, lambda progress: ("quantizing", 0.8 * progress.fraction)))

    def _entry_key(self, stop: Stop) -> str:
        """Where the measurements of a stop lie: they hold for the evaluation text and this machine."""
        return compute_key("squeeze facts", FACTS_VERSION, self.key(stop), self.evaluation.fingerprint, describe_machine())


def tabulate_stops(built: Sequence[Squeezed]) -> "pd.DataFrame":
    """Tabulate the stops of a `wb.Squeeze` that are built.

    Args:
        built: What `Squeeze.built_stops` gives.

    Returns:
        One row per stop: its recipe as text, bits per weight, bytes, perplexity and its ratio to the original's with 95 %
        intervals, memory in bytes, and speed in tokens per second.

    Example:
        >>> import tempfile
        >>> import workbench as wb
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     squeeze = wb.Squeeze(wb.open_model("builtin"), wb.Store(folder))
        ...     table = wb.measures.squeeze_table(squeeze.built_stops())  # those that come with the package
        >>> len(table), table.columns.tolist()[:4]
        (10, ['recipe', 'bits_per_weight', 'nominal_bits', 'bytes'])
    """
    import pandas as pd

    names = [field.name for field in fields(Squeezed) if field.name != "stop"]
    rows = [{"recipe": squeezed.stop.preset, **{name: getattr(squeezed, name) for name in names}} for squeezed in built]
    limits = [name for name in names if name.endswith(("_low", "_high"))]
    return pd.DataFrame(rows, columns=["recipe", *names]).astype(dict.fromkeys(limits, float))
