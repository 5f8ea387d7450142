"""Pinned results for comparison: one layer with several recipes, and whole models, each measured when it is pinned."""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field

import pandas as pd
from torch import Tensor

from workbench.analysis.decisions.headline import measure_steps
from workbench.analysis.predictions.generation_speed import measure_layer_seconds
from workbench.artifact.quantized_copy import build_packed_copy
from workbench.bits import BitLedger
from workbench.intervals import split_interval
from workbench.jobs import map_steps
from workbench.models import ModelHandle
from workbench.models import perplexity as reading
from workbench.models.text import Text
from workbench.quantized import QuantizedLayer
from workbench.recipe import Recipe

LAYER_COLUMNS = [
    "pin", "name", "bits_per_weight", "nominal_bits", "relative_error", "output_error", "microseconds", "speedup",
]  # fmt: skip
MODEL_COLUMNS = [
    "pin", "bits_per_weight", "nominal_bits", "quantized_bytes", "perplexity", "perplexity_low", "perplexity_high",
    "ratio", "ratio_low", "ratio_high", "tokens_per_second", "resident_bytes",
]  # fmt: skip


@dataclass(frozen=True)
class LayerPin:
    """One layer's result; `seconds` and `original_seconds` are what it takes with a single input, packed and as float32."""

    result: QuantizedLayer
    seconds: float
    original_seconds: float


@dataclass(frozen=True)
class ModelPin:
    """A whole model: what its quantized layers store, how it reads (95 % interval over documents), how it runs."""

    ledger: BitLedger
    read: reading.PerplexityResult
    tokens_per_second: float
    resident_bytes: int


@dataclass
class Pins:
    """Pinned results by their labels, oldest first. A label says the recipe; another result of the same recipe is numbered."""

    layers: dict[str, LayerPin] = field(default_factory=dict)
    models: dict[str, ModelPin] = field(default_factory=dict)

    def pin_layer(self, result: QuantizedLayer, original: Tensor) -> str:
        """Pin a layer's result; `original [rows, cols]` is what its speed is compared with. Returns its label."""
        there = next((label for label, pin in self.layers.items() if pin.result is result), None)
        label = there or make_unique_label(format_recipe(result.recipe), self.layers)
        self.layers[label] = LayerPin(result, *measure_layer_seconds(result.packed, original))
        return label

    def pin_model(
        self, model: ModelHandle, layers: Mapping[str, QuantizedLayer], changed: Mapping[str, Tensor], text: Text, prompt: str
    ) -> Generator[float, None, str]:
        """Pin the model with these layers packed: reads `text`, continues `prompt`; yields the share done, returns the label."""
        steps = measure_steps(build_packed_copy(model, layers, changed), text, prompt)
        measured = yield from map_steps(steps, lambda step: step.fraction)
        label = make_unique_label(label_recipes(layers.values(), len(model.layer_names)), self.models)
        ledger = BitLedger.merge(layer.ledger for layer in layers.values())
        running = measured.running
        self.models[label] = ModelPin(ledger, measured.read, running.speed.tokens_per_second, running.resident_bytes)
        return label

    def unpin(self, label: str) -> None:
        """Take a pin off; nothing happens where there is none."""
        self.layers.pop(label, None)
        self.models.pop(label, None)

    def layer_table(self) -> pd.DataFrame:
        """One row a pinned layer: pin, name, both bits, both errors, microseconds with one input, speedup over float32 torch."""
        rows = [
            (
                label,
                pin.result.name,
                pin.result.bits_per_weight,
                pin.result.nominal_bits,
                pin.result.relative_error,
                pin.result.output_error,
                1e6 * pin.seconds,
                pin.original_seconds / pin.seconds,
            )
            for label, pin in self.layers.items()
        ]
        return pd.DataFrame(rows, columns=LAYER_COLUMNS)

    def model_table(self) -> pd.DataFrame:
        """One row a pinned model: pin, both bits, bytes of the quantized layers, perplexity and speed, memory.

        Perplexities have their intervals, and `ratio` to the first pinned model with its own, paired document by document.
        """
        ratios = [
            reading.compute_perplexity_ratio(next(iter(self.models.values())).read, pin.read) for pin in self.models.values()
        ]
        rows = [
            (
                label,
                pin.ledger.bits_per_weight,
                pin.ledger.nominal_bits,
                pin.ledger.total_bits / 8,
                pin.read.perplexity,
                *split_interval(pin.read.perplexity_interval),
                ratio.ratio,
                *split_interval(ratio.interval),
                pin.tokens_per_second,
                pin.resident_bytes,
            )
            for (label, pin), ratio in zip(self.models.items(), ratios, strict=True)
        ]
        return pd.DataFrame(rows, columns=MODEL_COLUMNS)


def format_recipe(recipe: Recipe) -> str:
    """A recipe as short as on the command line: `rtn bits=2`."""
    return " ".join([recipe.name, *(f"{key}={value}" for key, value in recipe.settings)])


def label_recipes(layers: Iterable[QuantizedLayer], count: int) -> str:
    """The recipe of all layers, or how many recipes there are; and how many of `count` layers are quantized, if not all."""
    results = list(layers)
    recipes = list(dict.fromkeys(format_recipe(layer.recipe) for layer in results))
    name = recipes[0] if len(recipes) == 1 else f"a mix of {len(recipes)} recipes"
    return name if len(results) == count else f"{name}, {len(results)} of {count} layers"


def make_unique_label(label: str, labels: Mapping[str, object]) -> str:
    """The label, or the label with the first number that is free."""
    names = (label if number == 1 else f"{label} ({number})" for number in range(1, len(labels) + 2))
    return next(name for name in names if name not in labels)
