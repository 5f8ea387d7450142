"""The key figures of one model: stored bits, perplexity, and generation speed on this machine."""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workbench.analysis.predictions.generation_speed import Running, measure_generation_steps
from workbench.bench.cpu import read_processor_name
from workbench.jobs import map_steps
from workbench.models import ModelHandle
from workbench.models import perplexity as reading
from workbench.models.language_model import LanguageModel
from workbench.models.text import Text
from workbench.quantized import QuantizedModel


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Stored and nominal bits per weight with the share of the weights they are of (None: not known), and bytes on disk with all
    tensors of the model. `stored_as` names the types, or another program's formats, that an original's layers are stored in."""

    bits_per_weight: float
    nominal_bits: float
    bytes: int
    coverage: float | None = None
    stored_as: str = ""


@dataclass(frozen=True, kw_only=True)
class Headline(Stored):
    """What a model stores, how well it predicts a text, and how it runs.

    Perplexities have 95 % intervals over documents, None where there is none; `ratio` is to the original's, paired document by
    document. `resident_bytes` are what its weights take in memory while it runs; tokens per second are a median, with the slowest
    and the fastest round, and None where speed was not measured on this machine.
    """

    perplexity: float
    perplexity_low: float | None
    perplexity_high: float | None
    ratio: float
    ratio_low: float | None
    ratio_high: float | None
    text_tokens: int
    resident_bytes: int
    tokens_per_second: float | None = None
    slowest: float | None = None
    fastest: float | None = None

    @property
    def times(self) -> reading.PerplexityRatio:
        """Its perplexity over the original's, paired document by document."""
        interval = None if self.ratio_low is None or self.ratio_high is None else (self.ratio_low, self.ratio_high)
        return reading.PerplexityRatio(self.ratio, interval, self.text_tokens)


@dataclass(frozen=True)
class Measuring:
    """What is being done, and the share of the whole that is done, 0 to 1."""

    doing: str
    fraction: float


@dataclass(frozen=True)
class Measured:
    """How a model predicts a text and how it runs."""

    read: reading.PerplexityResult
    running: Running


def measure_steps(lm: LanguageModel, text: Text, prompt: str) -> Generator[Measuring, None, Measured]:
    """Read `text` and continue `prompt`; yields what is being done."""
    spans, windows = list(reading.iterate_spans(lm, text)), []
    for number, span in enumerate(spans):
        yield Measuring("reading the evaluation text", 0.8 * number / len(spans))
        windows.append(reading.score(lm, span))
    timing = Measuring("measuring its speed", 0.8)
    yield timing
    (running,) = yield from map_steps(measure_generation_steps([lm], prompt), lambda _: timing)
    return Measured(reading.summarise(windows, text.name), running)


def collect_headline_facts(measured: Measured, original: reading.PerplexityResult) -> dict[str, Any]:
    """The fields of a Headline that come from measuring it; `original` is how the original reads the same text."""
    ratio = reading.compute_perplexity_ratio(original, measured.read)
    low, high = measured.read.perplexity_interval or (None, None)
    lowest, highest = ratio.interval or (None, None)
    return {
        "perplexity": measured.read.perplexity,
        "perplexity_low": low,
        "perplexity_high": high,
        "ratio": ratio.ratio,
        "ratio_low": lowest,
        "ratio_high": highest,
        "text_tokens": measured.read.tokens,
        **collect_running_facts(measured.running),
    }


def collect_running_facts(running: Running) -> dict[str, Any]:
    """The fields of a Headline that hold for this machine."""
    return {
        "resident_bytes": running.resident_bytes,
        "tokens_per_second": running.speed.tokens_per_second,
        "slowest": running.speed.low,
        "fastest": running.speed.high,
    }


def count_stored_files(quantized: QuantizedModel, folder: Path) -> Stored:
    """What a saved model stores: its own counts of bits, and the bytes of its files."""
    return Stored(
        bits_per_weight=quantized.bits_per_weight,
        nominal_bits=quantized.nominal_bits,
        coverage=quantized.coverage,
        bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
    )


def count_stored(model: ModelHandle, quantized: QuantizedModel | None) -> Stored:
    """What a model stores, counted; None stands for the original, whose weights are all as it stores them.

    The size of a quantized model is that of its tensors: what the layers of its blocks store, and every other tensor as the model
    stores it, decoded where another program had quantized it.
    """
    layers = [model.layer(name) for name in (model.layer_names if quantized is None else quantized.layers)]
    if quantized is None:
        bits = sum(layer.rows * layer.cols * layer.bits for layer in layers) / sum(layer.rows * layer.cols for layer in layers)
        names = ", ".join(dict.fromkeys(layer.dtype for layer in layers))
        return Stored(bits_per_weight=bits, nominal_bits=bits, bytes=model.stored_bytes, stored_as=names)
    before = sum(model.count_decoded_bytes(layer.name) for layer in layers)
    return Stored(
        bits_per_weight=quantized.bits_per_weight,
        nominal_bits=quantized.nominal_bits,
        bytes=round(model.decoded_bytes - before + quantized.ledger.total_bits / 8),
        coverage=quantized.coverage,
    )


def describe_machine() -> list[object]:
    """What a speed that was measured holds for: processor, threads and torch, as a part of a key."""
    return [read_processor_name(), torch.get_num_threads(), torch.__version__]
