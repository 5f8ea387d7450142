"""Calibration on other mixtures of text: second moments per source, combined with any weights.

Moments are means over tokens, so a mixture with shares w_i of the tokens has H = Σ w_i H_i: no text is read again. Every source
is cut into two halves, document by document: one to calibrate on, one held out to measure with.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.calibration import CalibrationStats, calibrate
from workbench.errors import ModelError
from workbench.input_sums import LayerStats
from workbench.jobs import run_steps
from workbench.models.derived_text import DERIVED, derive
from workbench.models.handle import ModelHandle
from workbench.models.text import Text
from workbench.models.text import text as read_text
from workbench.quantizers.distance import compute_output_error
from workbench.quantizers.pipeline import quantize_layer
from workbench.recipe import Recipe
from workbench.store import Store

if TYPE_CHECKING:
    import pandas as pd

TOKENS_PER_TEXT = 4096
SALIENT_SHARE = 0.05  # share of the channels that count as salient


@dataclass(frozen=True)
class Progress:
    """How far a reading of texts is, 0 to 1."""

    fraction: float


@dataclass(frozen=True)
class SourceStats:
    """Statistics of one source: of the half to calibrate on, and of the half held out."""

    fit: CalibrationStats
    held_out: CalibrationStats


Sources = Mapping[str, SourceStats]
Weights = Mapping[str, float]


def read_default_texts() -> list[Text]:
    """Read the two texts that are shipped, and three derived ones, which say so in their names.

    Returns:
        The texts; `wb.measures.read_sources` takes them.

    Example:
        >>> import workbench as wb
        >>> [text.name.split(" (")[0] for text in wb.measures.calibration_texts()]
        ['calibration', 'evaluation', 'shuffled words', 'program-like', 'random letters']
    """
    words = read_text("calibration")
    return [words, read_text("evaluation"), *(derive(kind, words) for kind in DERIVED)]


def split_text(text: Text) -> tuple[Text, Text]:
    """Every other document, to calibrate on and held out; one document is cut in the middle."""
    documents = text.documents
    if len(documents) == 1:
        middle = len(documents[0]) // 2
        documents = (documents[0][:middle], documents[0][middle:])
    return Text(f"{text.name}, first half", documents[::2]), Text(f"{text.name}, held out", documents[1::2])


def read_sources(
    model: ModelHandle,
    texts: Iterable[Text],
    *,
    layers: Sequence[str] | None = None,
    tokens: int = TOKENS_PER_TEXT,
    seed: int = 0,
    store: Store | None = None,
) -> dict[str, SourceStats]:
    """Measure the input statistics of layers on both halves of several texts: one to calibrate on, one held out.

    Args:
        model: A model from `wb.open_model`.
        texts: The texts; no two may have the same name.
        layers: Names of the layers, all layers of the blocks when absent.
        tokens: At most so many tokens of each half.
        seed: Draws the order of the documents.
        store: Where statistics are found by content, and new ones are kept.

    Returns:
        By the text's name the statistics of both halves, `fit` and `held_out`.

    Raises:
        ModelError: For two texts of one name, and for unknown layers.

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.self_attn.k_proj"
        >>> sources = wb.measures.read_sources(model, [wb.text("calibration")], layers=[layer], tokens=256)
        >>> sources["calibration"].held_out
        <CalibrationStats of 1 layers on calibration, held out: 256 tokens>
    """
    return run_steps(read_sources_steps(model, texts, layers=layers, tokens=tokens, seed=seed, store=store))


def read_sources_steps(
    model: ModelHandle,
    texts: Iterable[Text],
    *,
    layers: Sequence[str] | None = None,
    tokens: int = TOKENS_PER_TEXT,
    seed: int = 0,
    store: Store | None = None,
) -> Generator[Progress, None, dict[str, SourceStats]]:
    """The same as a generator, for a job that can be stopped between texts."""
    chosen = list(texts)
    if len({text.name for text in chosen}) < len(chosen):
        raise ModelError(f"two of the texts {', '.join(text.name for text in chosen)} have the same name; rename one.")
    sources: dict[str, SourceStats] = {}
    for number, text in enumerate(chosen):
        fit, held_out = (
            calibrate(model, half, tokens=tokens, seed=seed, layers=layers, store=store) for half in split_text(text)
        )
        sources[text.name] = SourceStats(fit, held_out)
        yield Progress((number + 1) / len(chosen))
    return sources


def compute_shares(weights: Weights, sources: Sources) -> dict[str, float]:
    """Weights of the sources as shares that add up to 1; ModelError where none is above zero or one is unknown."""
    if unknown := sorted(set(weights) - set(sources)):
        raise ModelError(f"no source {unknown[0]!r}; there are {', '.join(map(repr, sources))}.")
    if min(weights.values(), default=0) < 0 or (total := sum(weights.values())) <= 0:
        raise ModelError(f"weights {dict(weights)} are not a mixture; give weights of 0 or more, one of them above 0.")
    return {name: weight / total for name, weight in weights.items() if weight > 0}


def mix_stats(sources: Sources, weights: Weights, layer: str) -> LayerStats:
    """A layer's statistics on a mixture: moment and mean weighted, largest magnitudes of what is in it."""
    parts = [(share, sources[name].fit[layer]) for name, share in compute_shares(weights, sources).items()]
    return LayerStats(
        sum((share * part.moment.double() for share, part in parts), torch.zeros(())).float(),
        sum((share * part.mean.double() for share, part in parts), torch.zeros(())).float(),
        torch.stack([part.absmax for _, part in parts]).amax(0),
        sum(part.tokens for _, part in parts),
    )


def _compute_channel_energy(weight: Tensor, moment: Tensor) -> Tensor:
    """What each input channel adds to the output's energy by itself, ‖W_j‖² H_jj, `[cols]`."""
    return weight.float().square().sum(0) * moment.diagonal()


def select_salient(energy: Tensor, share: float = SALIENT_SHARE) -> set[int]:
    """The channels with the most energy, at least one."""
    count = max(1, round(share * len(energy)))
    return set(torch.argsort(energy, descending=True, stable=True)[:count].tolist())


def tabulate_overlaps(
    model: ModelHandle, sources: Sources, weights: Weights, layer: str, *, share: float = SALIENT_SHARE
) -> "pd.DataFrame":
    """Compare the salient input channels of a layer under a mixture of texts with those under each text alone.

    Args:
        model: A model from `wb.open_model`.
        sources: Statistics of texts, from `wb.measures.read_sources`.
        weights: The weight of each text in the mixture, by name; only their ratios count.
        layer: The layer's name.
        share: The share of the channels that count as salient: those with the largest ‖W_j‖² E[x_j²].

    Returns:
        One row a source: source, weight (its share of the mixture), jaccard (of the two sets), shared and channels (how many),
        energy (share of the source's held-out energy that the mixture's channels carry).

    Raises:
        ModelError: For weights that make no mixture, and for an unknown source or layer.

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.self_attn.k_proj"
        >>> texts = wb.text("calibration"), wb.text("evaluation")
        >>> sources = wb.measures.read_sources(model, texts, layers=[layer], tokens=256)
        >>> table = wb.measures.channel_overlaps(model, sources, {"calibration": 1}, layer)
        >>> table["jaccard"].tolist()[0], table["channels"].tolist()  # the mixture is the first text alone
        (1.0, [13, 13])
    """
    import pandas as pd

    weight, mixture_shares = model.weight(layer), compute_shares(weights, sources)
    chosen = select_salient(_compute_channel_energy(weight, mix_stats(sources, weights, layer).moment), share)
    rows = []
    for name, source in sources.items():
        theirs = select_salient(_compute_channel_energy(weight, source.fit[layer].moment), share)
        energy = _compute_channel_energy(weight, source.held_out[layer].moment)
        common = len(chosen & theirs)
        carried = (energy[sorted(chosen)].sum() / energy.sum()).item()
        rows.append((name, mixture_shares.get(name, 0.0), common / len(chosen | theirs), common, len(chosen), carried))
    return pd.DataFrame(rows, columns=["source", "weight", "jaccard", "shared", "channels", "energy"])


def tabulate_spectra(sources: Sources, weights: Weights, layer: str) -> "pd.DataFrame":
    """Compute the eigenvalues of the second moment of a layer's inputs, under a mixture of texts and under each text alone.

    Args:
        sources: Statistics of texts, from `wb.measures.read_sources`.
        weights: The weight of each text in the mixture, by name; only their ratios count.
        layer: The layer's name.

    Returns:
        One row for each source (the first is "mixture") and eigenvalue, largest first: source, rank (from 1), eigenvalue,
        cumulative (share of the sum up to here).

    Raises:
        ModelError: For weights that make no mixture, and for an unknown source.

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.self_attn.k_proj"
        >>> sources = wb.measures.read_sources(model, [wb.text("calibration")], layers=[layer], tokens=256)
        >>> table = wb.measures.input_spectra(sources, {"calibration": 1}, layer)
        >>> table["source"].unique().tolist(), len(table)  # 256 input channels
        (['mixture', 'calibration'], 512)
    """
    import pandas as pd

    moments = {"mixture": mix_stats(sources, weights, layer).moment, **{name: s.fit[layer].moment for name, s in sources.items()}}
    frames = []
    for name, moment in moments.items():
        values = torch.linalg.eigvalsh(moment.double()).flip(0).clamp(min=0)
        rank = range(1, len(values) + 1)
        cumulative = values.cumsum(0) / values.sum()
        frames.append(
            pd.DataFrame({"source": name, "rank": rank, "eigenvalue": values.numpy(), "cumulative": cumulative.numpy()})
        )
    return pd.concat(frames, ignore_index=True)


def tabulate_mixture_errors(
    model: ModelHandle,
    sources: Sources,
    weights: Weights,
    layer: str,
    recipe: Recipe,
    source_errors: Mapping[str, float] | None = None,
) -> "pd.DataFrame":
    """Measure a layer's output error on every text when its recipe is calibrated on a mixture of texts.

    Args:
        model: A model from `wb.open_model`.
        sources: Statistics of texts, from `wb.measures.read_sources`.
        weights: The weight of each text in the mixture, by name; only their ratios count.
        layer: The layer's name.
        recipe: A recipe that uses calibration.
        source_errors: The column `own` by source, where it is known; measured here when absent.

    Returns:
        One row a source: source, weight (its share of the mixture), calibrated and held_out_error (relative output errors on both
        halves of the text), own (held out, when calibrated on that source alone).

    Raises:
        ModelError: For weights that make no mixture, and for an unknown source or layer.

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.self_attn.k_proj"
        >>> sources = wb.measures.read_sources(model, [wb.text("calibration")], layers=[layer], tokens=256)
        >>> table = wb.measures.mixture_errors(model, sources, {"calibration": 1}, layer, wb.recipe("gptq", bits=2))
        >>> bool(table["held_out_error"][0] > table["calibrated"][0])
        True
    """
    import pandas as pd

    weight, parts = model.weight(layer).float(), compute_shares(weights, sources)
    alone = measure_source_errors(model, sources, layer, recipe) if source_errors is None else source_errors
    mixture = mix_stats(sources, weights, layer)
    decoded = _quantize_matrix(weight, mixture.moment, mixture.tokens, recipe)
    rows = []
    for name, source in sources.items():
        errors = (compute_output_error(weight, decoded, half[layer].moment) for half in (source.fit, source.held_out))
        rows.append((name, parts.get(name, 0.0), *errors, alone[name]))
    return pd.DataFrame(rows, columns=["source", "weight", "calibrated", "held_out_error", "own"])


def measure_source_errors(model: ModelHandle, sources: Sources, layer: str, recipe: Recipe) -> dict[str, float]:
    """The layer's held-out output error on each source when it is calibrated on that source alone."""
    weight, errors = model.weight(layer).float(), {}
    for name, source in sources.items():
        layer_fit = source.fit[layer]
        errors[name] = compute_output_error(
            weight, _quantize_matrix(weight, layer_fit.moment, layer_fit.tokens, recipe), source.held_out[layer].moment
        )
    return errors


def _quantize_matrix(weight: Tensor, moment: Tensor, tokens: int, recipe: Recipe) -> Tensor:
    """What a recipe makes of a matrix under a moment of so many tokens, as values."""
    return run_steps(quantize_layer(weight, moment, recipe, tokens=tokens)).weight()


def measure_influence(
    model: ModelHandle,
    text: Text,
    layer: str,
    recipe: Recipe,
    *,
    tokens: int = TOKENS_PER_TEXT,
    on_progress: Callable[[float, float], None] = lambda *_: None,
) -> "pd.DataFrame":
    """Measure which documents of a text matter: each one is left out once, and the layer quantized without it.

    Args:
        model: A model from `wb.open_model`.
        text: The text; every other document is held out to measure with.
        layer: The layer's name.
        recipe: A recipe that uses calibration.
        tokens: At most so many tokens of each half.
        on_progress: Called with (share done, 1) after every document.

    Returns:
        One row a document of the half to calibrate on, the most influential first: sample (its number), begins, tokens,
        moment_change = ‖H₋ᵢ − H‖/‖H‖, error_change = held-out output error without it minus with it (above zero: the document
        helps).

    Raises:
        ModelError: For fewer than two documents, and for an unknown layer.

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.self_attn.k_proj"
        >>> table = wb.measures.document_influence(model, wb.text("calibration"), layer, wb.recipe("gptq", bits=2), tokens=512)
        >>> table["tokens"].tolist()
        [437, 75]
    """
    return run_steps(
        measure_influence_steps(model, text, layer, recipe, tokens=tokens), lambda step: on_progress(step.fraction, 1)
    )


def measure_influence_steps(
    model: ModelHandle, text: Text, layer: str, recipe: Recipe, *, tokens: int = TOKENS_PER_TEXT
) -> Generator[Progress, None, "pd.DataFrame"]:
    """The same as a generator, for a job."""
    import pandas as pd

    fit, rest = split_text(text)
    weight = model.weight(layer).float()
    held_out = calibrate(model, rest, tokens=tokens, layers=[layer])[layer].moment
    samples = calibrate_documents(model, fit, layer, tokens)
    yield Progress(0.5)
    total = sum(stats.tokens for _, stats in samples)
    summed = sum((stats.tokens * stats.moment.double() for _, stats in samples), torch.zeros(()))
    moment = (summed / total).float()
    before = compute_output_error(weight, _quantize_matrix(weight, moment, total, recipe), held_out)
    rows = []
    for done, (number, stats) in enumerate(samples):
        without = ((summed - stats.tokens * stats.moment.double()) / (total - stats.tokens)).float()
        change = ((without - moment).norm() / moment.norm()).item()
        error = compute_output_error(weight, _quantize_matrix(weight, without, total - stats.tokens, recipe), held_out) - before
        begins = " ".join(fit.documents[number].split()[:6])
        rows.append((number, begins, stats.tokens, change, error))
        yield Progress(0.5 + 0.5 * (done + 1) / len(samples))
    table = pd.DataFrame(rows, columns=["sample", "begins", "tokens", "moment_change", "error_change"])
    order = table["error_change"].abs().sort_values(ascending=False, kind="stable").index
    return table.loc[order].reset_index(drop=True)


def calibrate_documents(model: ModelHandle, text: Text, layer: str, tokens: int) -> list[tuple[int, LayerStats]]:
    """A layer's statistics on each document by itself, in the text's order, `tokens` tokens in all; at least two documents."""
    chosen, left = [], tokens
    for number, document in enumerate(text.documents):
        if left <= 0:
            break
        stats = calibrate(model, Text(text.name, (document,)), tokens=left, layers=[layer])[layer]
        chosen.append((number, stats))
        left -= stats.tokens
    if len(chosen) < 2:
        raise ModelError(
            f"{len(chosen)} documents of {text.name!r} were read; influence needs at least 2: give more tokens or texts."
        )
    return chosen
