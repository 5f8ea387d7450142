"""What every preset makes of one layer: stored bits and error, tried on some of its rows.

A trial is kept in the store under the content of weights and calibration, so that a layer is tried once.
"""

import dataclasses
import math
import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd
from torch import Tensor

from workbench import presets
from workbench.errors import WorkbenchError
from workbench.input_sums import LayerStats
from workbench.jobs import map_steps, run_steps
from workbench.kernels.formats.format import find
from workbench.kernels.packing.packed import Packed, count_stored_bits
from workbench.kernels.packing.tensor_spec import TensorSpec
from workbench.models import ModelHandle
from workbench.presets.preset import FAMILIES, Preset
from workbench.quantizers.contract import Snapshot
from workbench.quantizers.pipeline import needs_moment, quantize_layer
from workbench.quantizers.runs.quantize_layer import find_guided, find_moment, find_token_count, is_measured
from workbench.quantizers.runs.sharing import TransformedWeights
from workbench.recipe import Recipe
from workbench.store import Store, compute_key

VERSION = 1  # another one where a trial comes to hold other numbers
LEAST_ROWS = 64  # of a layer that are tried
WEIGHTS = 1 << 16  # of a larger one; two thin factors fit few rows worse than all of them, and are tried on more
FACTORED, FACTORED_WEIGHTS = "low rank", 1 << 18
COLUMNS = [
    "title", "family", "recipe", "bits_per_weight", "nominal_bits", "relative_error", "output_error", "tried_rows",
]  # fmt: skip

Stats = Mapping[str, LayerStats]


@dataclass(frozen=True)
class Trial:
    """A recipe, by its one word, on `rows` of a layer; one with a `problem` does not fit the layer and has no figures.

    `bits_per_weight` is what the whole layer would store. The errors are those of the rows; `output_error` is None where the
    layer was not calibrated.
    """

    recipe: str
    rows: int
    bits_per_weight: float = math.nan
    nominal_bits: float = math.nan
    relative_error: float = math.nan
    output_error: float | None = None
    problem: str = ""


@dataclass(frozen=True)
class Tried:
    """So many recipes of `total` have been tried, with what came of them by recipe; `calibrated` says whether under a moment."""

    total: int
    trials: Mapping[str, Trial]
    calibrated: bool

    @property
    def fraction(self) -> float:
        """How much of the whole is done, 0 to 1."""
        return len(self.trials) / self.total


def list_families() -> dict[str, list[type[Preset]]]:
    """The presets that quantize by what they have in common, from the plainest family on; in each the oldest paper first."""
    methods = [presets.find(name) for name in presets.list_presets() if name != "none"]
    families = {family: [preset for preset in methods if preset.family == family] for family in FAMILIES}
    return {family: sorted(members, key=_find_paper_date) for family, members in families.items() if members}


def _find_paper_date(preset: type[Preset]) -> str:
    """Year, month and number of the preset's first paper on arXiv; empty for what every paper knows."""
    number = re.search(r"\d{4}\.\d{4,5}", preset.source)
    return number.group() if number else ""


def list_trial_recipes(*, calibrated: bool) -> list[str]:
    """Every preset with its default settings, then those with `bits` at other rates of their range; without calibration those
    that can do without."""
    methods = [preset for family in list_families().values() for preset in family]
    rated = [(preset, rate) for preset in methods for rate in _list_other_rates(preset)]
    recipes = [preset().recipe() for preset in methods]
    recipes += [presets.recipe(preset.name, bits=rate) for preset, rate in rated]
    return [presets.spell(recipe) for recipe in recipes if calibrated or not needs_moment(recipe)]


def _list_other_rates(preset: type[Preset]) -> list[float]:
    """The rates of a preset with the setting `bits` that are in its range, but for its default."""
    field = next((field for field in dataclasses.fields(preset) if field.name == "bits"), None)
    if field is None:
        return []
    low, high = field.metadata["low"], field.metadata["high"]
    rates = [rate for rate in preset.rates if low <= rate <= high and rate != field.default]
    return [int(rate) for rate in rates] if isinstance(field.default, int) else rates


def spread_rows(rows: int, count: int) -> range:
    """`count` of so many rows, spread evenly, or all where there are no more."""
    count = min(rows, count)
    step = rows // count
    return range(step // 2, step // 2 + count * step, step)


def try_presets(model: ModelHandle, layer: str, stats: Stats | None = None, *, store: Store | None = None) -> pd.DataFrame:
    """Try every preset on some rows of a layer: what it would store, and the error that it makes.

    Args:
        model: A model from `wb.open_model`.
        layer: The name of one of its layers.
        stats: Statistics from `wb.calibrate`; without them, presets that need calibration are left out.
        store: Where trials are found by content, and new ones are kept; the user's store when absent.

    Returns:
        One row per recipe that fits the layer: title, family, recipe, bits_per_weight (of the whole layer), nominal_bits,
        relative_error and output_error (of the rows; NaN without `stats`), tried_rows; ordered by family and bits.

    Raises:
        ModelError: For a layer that the model does not have.

    Example:
        >>> import tempfile
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.self_attn.k_proj"
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trials = wb.measures.preset_trials(model, layer, store=wb.Store(folder))
        >>> two_bits = trials[trials["bits_per_weight"].between(2, 2.2)]
        >>> two_bits.sort_values("relative_error")["title"].iloc[-1]
        'Round to nearest'
    """
    return tabulate_trials(run_steps(try_presets_steps(model, layer, stats, store)))


def try_presets_steps(
    model: ModelHandle, layer: str, stats: Stats | None = None, store: Store | None = None
) -> Generator[Tried, None, dict[str, Trial]]:
    """Try every preset on a layer, those first that were tried before; yields all trials so far, now and then."""
    store, recipes = store or Store(), list_trial_recipes(calibrated=stats is not None)
    subject = Subject(model, layer, stats)
    trials = {spelled: trial for spelled in recipes if (trial := subject.find(spelled, store)) is not None}

    def report(_: object = None) -> Tried:
        return Tried(len(recipes), dict(trials), stats is not None)

    yield report()
    for spelled in recipes:
        if spelled not in trials:
            trials[spelled] = yield from map_steps(subject.try_steps(spelled, store), report)
            yield report()
    return trials


class Subject:
    """The layer that presets are tried on: its weight, its moment, and the key of both."""

    def __init__(self, model: ModelHandle, layer: str, stats: Stats | None) -> None:
        self.model, self.stats, self.layer = model, stats, model.layer(layer)
        self.weight, self.tokens = model.weight(layer), find_token_count(layer, stats)
        moment = None if stats is None or layer not in stats else stats[layer].moment
        self._content = compute_key(self.weight, [] if moment is None else moment, self.tokens, self.layer.role)

    def choose_rows(self, recipe: Recipe) -> range:
        """The rows that a recipe is tried on."""
        weights = FACTORED_WEIGHTS if presets.find(recipe.name).family == FACTORED else WEIGHTS
        return spread_rows(self.layer.rows, max(LEAST_ROWS, weights // self.layer.cols))

    def key(self, recipe: Recipe) -> str:
        """Where a trial is stored."""
        rows = self.choose_rows(recipe)
        return compute_key("preset trial", VERSION, self._content, [rows.start, rows.stop, rows.step], recipe.to_dict())

    def find(self, spelled: str, store: Store) -> Trial | None:
        """A trial that was made before, by any process, or None."""
        entry = store.get(self.key(presets.parse(spelled)))
        return None if entry is None else Trial(**entry.facts)

    def try_steps(self, spelled: str, store: Store) -> Generator[Snapshot | None, None, Trial]:
        """Try one recipe, unless somebody else just has."""
        recipe = presets.parse(spelled)
        if (trial := self.find(spelled, store)) is not None:
            return trial
        yield None
        try:
            trial = yield from self._quantize_steps(spelled, recipe)
        except WorkbenchError as error:
            return Trial(spelled, len(self.choose_rows(recipe)), problem=str(error))
        what = f"{presets.find(recipe.name).title} on {self.layer.name}"
        store.put(self.key(recipe), {}, asdict(trial), kind="preset trial", what=what)
        return trial

    def _quantize_steps(self, spelled: str, recipe: Recipe) -> Generator[Snapshot, None, Trial]:
        rows = self.choose_rows(recipe)
        result = yield from quantize_layer(
            self.weight[list(rows)],
            find_moment(self.layer, recipe, self.stats),
            recipe,
            self._prepare_shared(recipe, rows),
            self.layer.name,
            tokens=self.tokens,
            measured=is_measured(self.layer),
            guided=find_guided(self.layer, recipe, self.stats),
        )
        bits = count_layer_bits(result.packed, self.layer.rows)
        return Trial(spelled, len(rows), bits, result.nominal_bits, result.relative_error, result.output_error)

    def _prepare_shared(self, recipe: Recipe, rows: range) -> Sequence[Any] | None:
        """Codebooks of all rows: those of a few rows would fit them better than any codebook fits the layer."""
        if len(rows) == self.layer.rows or recipe.transform.learns:
            return None
        weights = TransformedWeights(self.model, recipe, [self.layer.name], self.stats, {})
        return [coder.prepare(weights) for coder in recipe.coders]


def count_layer_bits(packed: Packed, rows: int) -> float:
    """Stored bits a weight of a matrix with so many rows, some of which `packed` holds.

    What belongs to rows is there for each of them; codebooks and whatever belongs to columns are there once. Where two factors
    are stored, their rank follows from the bits, so that these are those of the rows at hand.
    """
    growth = rows / packed.rows
    total = 0.0
    for _, node in packed.walk():
        few, all_rows = (_declare_sizes(node, node_rows) for node_rows in (node.rows, round(node.rows * growth)))
        for name, tensor in node.tensors.items():
            grown = growth if "rank" in node.facts else all_rows[name] / few[name]
            total += count_stored_bits(tensor) * grown
    return total / (rows * packed.cols)


def _declare_sizes(node: Packed, rows: int) -> dict[str, float]:
    """How many numbers each tensor of a node holds with so many rows, as its format declares it."""
    declared = find(node).tensors(dataclasses.replace(node, rows=rows), None)
    return {name: float(math.prod(_list_sizes(spec, node.tensors[name]))) for name, spec in declared if name in node.tensors}


def _list_sizes(spec: TensorSpec, tensor: Tensor) -> list[int]:
    """The declared shape, with the size at hand where any is allowed."""
    return [size if declared is None else declared for declared, size in zip(spec.shape, tensor.shape, strict=True)]


def tabulate_trials(trials: Mapping[str, Trial]) -> pd.DataFrame:
    """One row a trial that fits the layer: title, family, recipe, both bits, both errors, tried_rows; by family and bits."""
    rows = []
    for trial in trials.values():
        preset = presets.find(presets.parse(trial.recipe).name)
        if not trial.problem:
            output = math.nan if trial.output_error is None else trial.output_error
            figures = (trial.bits_per_weight, trial.nominal_bits, trial.relative_error, output)
            rows.append((preset.title, preset.family, trial.recipe, *figures, trial.rows))
    table = pd.DataFrame(rows, columns=COLUMNS)
    order = table["family"].map({family: position for position, family in enumerate(FAMILIES)})
    return table.assign(order=order).sort_values(["order", "title", "bits_per_weight"])[COLUMNS].reset_index(drop=True)
