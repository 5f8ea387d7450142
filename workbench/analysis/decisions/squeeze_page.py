"""What the static page of a squeezed model shows: each stop's figures, text, errors, ledger and histograms, as plain data."""

from collections.abc import Generator
from dataclasses import dataclass

import pandas as pd

from workbench.analysis.decisions.quant_card import strip_model_path
from workbench.analysis.decisions.squeeze import Squeeze, Squeezed
from workbench.analysis.predictions.generation import Writing, write_together
from workbench.analysis.weights.weight_sketch import Histogram, Levels, compute_histogram, compute_sketch, find_layer_levels
from workbench.bits import BitLedger
from workbench.errors import WorkbenchError
from workbench.jobs import Counted
from workbench.quantized import QuantizedModel

PAGE_TOKENS = 60  # that both models write
HISTOGRAM_BINS = 101
ERRORS = ("relative_error", "output_error")


@dataclass(frozen=True)
class LayerPicture:
    """The weights of one layer after quantization, beside `SqueezePage.originals`; no levels where they cannot be drawn."""

    histogram: Histogram
    levels: Levels | None


@dataclass(frozen=True)
class StopPage:
    """One stop: `layers` has a row for each layer, with its errors; `ledger` counts what is stored."""

    squeezed: Squeezed
    writing: Writing
    layers: pd.DataFrame
    ledger: BitLedger
    pictures: dict[str, LayerPicture]


@dataclass(frozen=True)
class SqueezePage:
    """Everything on the page: the stops from the original down, and the histogram of each layer before it was quantized."""

    source: str
    prompt: str
    evaluation: str
    stops: tuple[StopPage, ...]
    originals: dict[str, Histogram]


def collect_page_steps(squeeze: Squeeze, prompt: str, tokens: int = PAGE_TOKENS) -> Generator[Counted, None, SqueezePage]:
    """Build the stops that are missing, let every stop continue `prompt`, and collect what the page shows.

    Args:
        squeeze: The stops of a model.
        prompt: What the original and every stop continue.
        tokens: How many tokens each of them writes.

    Returns:
        The page's content.

    Raises:
        WorkbenchError: For an empty prompt.
    """
    if not prompt.strip():
        raise WorkbenchError("the prompt is empty; give a few words that the models continue.")
    total = 2 * len(squeeze.stops)
    for step in squeeze.steps():
        yield Counted(round(len(squeeze.stops) * step.fraction), total)
    model, stops = squeeze.model, []
    originals = {name: compute_sketch(model.weight(name), bins=HISTOGRAM_BINS).histogram for name in model.layer_names}
    for number, squeezed in enumerate(squeeze.built_stops()):
        yield Counted(len(squeeze.stops) + number, total)
        quantized = squeeze.quantized_at(squeezed.stop)
        writing = Writing()
        for written in write_together(model.language_model(), squeeze.model_at(squeezed.stop), prompt, tokens):
            writing = written
        pictures = {} if squeezed.stop.is_original else dict(_collect_layer_pictures(quantized, originals))
        layers = model.layers()[["name", "block", "matrix"]]
        errors = {field: [getattr(quantized.layers[name], field) for name in layers["name"]] for field in ERRORS}
        stops.append(StopPage(squeezed, writing, layers.assign(**errors), quantized.ledger, pictures))
    return SqueezePage(strip_model_path(model.source), prompt, squeeze.evaluation.name, tuple(stops), originals)


def _collect_layer_pictures(
    quantized: QuantizedModel, originals: dict[str, Histogram]
) -> Generator[tuple[str, LayerPicture], None, None]:
    """The histogram of every quantized layer on its original's axis, and the levels of its codes."""
    for name, layer in quantized.layers.items():
        histogram = compute_histogram(layer.weight(), limit=originals[name].high, bins=HISTOGRAM_BINS)
        yield name, LayerPicture(histogram, find_layer_levels(layer.packed))
