"""Calibration statistics of a layer's inputs on text: second moment, mean and largest magnitude of every channel.

Text runs through the model document by document; hooks see the input of every layer. Statistics of two texts add up.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.guided_moments import TENSORS as GUIDED_TENSORS
from workbench.guided_moments import GuidedCollector, GuidedMoments, TokenWeights, count_bytes
from workbench.input_sums import Collector, LayerStats
from workbench.memory import spill
from workbench.models.output_gradients import measure_token_weights
from workbench.seeds import check_seed
from workbench.store import Entry, Store, compute_key

if TYPE_CHECKING:
    from workbench.models.handle import ModelHandle
    from workbench.models.text import Text

DEFAULT_TOKENS = 16_384  # of a text, unless told otherwise
WINDOW = 2048
GUIDED_BYTES = 1 << 30  # of guided moments that are summed at once: each layer has several; above, one block after the other is


@dataclass(frozen=True)
class Source:
    """One text that went into the statistics: its name and fingerprint, tokens seen, and the seed of the documents' order."""

    text: str
    fingerprint: str
    tokens: int
    seed: int


class CalibrationStats(Mapping[str, LayerStats]):
    """LayerStats by layer name; layers that read the same input (q, k, v; gate, up) share one object. `a + b` adds texts.

    `unreached` are layers that no token of the text came to, such as experts that were never chosen, with their columns. `guided`
    are moments weighted by the loss (see `GuidedMoments`) by layer, where they were asked for.
    """

    def __init__(
        self,
        layers: Mapping[str, LayerStats],
        sources: Sequence[Source],
        unreached: Mapping[str, int] | None = None,
        guided: Mapping[str, GuidedMoments] | None = None,
    ) -> None:
        self._layers, self.sources, self.unreached = dict(layers), tuple(sources), dict(unreached or {})
        self.guided = dict(guided or {})

    def __getitem__(self, layer: str) -> LayerStats:
        return self._layers[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __repr__(self) -> str:
        return f"<CalibrationStats of {len(self)} layers on {self.facts()['text']}: {self.tokens} tokens>"

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(source.tokens for source in self.sources)

    @property
    def sparse(self) -> dict[str, int]:
        """Layers that too few tokens came to (see `is_sparse`), such as experts that are hardly ever chosen, and how many."""
        return {name: layer.tokens for name, layer in self.items() if is_sparse(layer.tokens, len(layer.mean), self.tokens)}

    def facts(self) -> dict[str, Any]:
        """Plain facts for a saved artifact: text, fingerprint, tokens, seed; those of several texts joined by " + ".

        `unreached` lists layers that no token came to, `sparse` has the tokens of layers that too few came to (see `is_sparse`),
        `guided` is the number of groups of guided moments, where there are any.
        """
        first, gaps = self.sources[0], list_gaps(self.unreached, self.sparse)
        if self.guided:
            gaps["guided"] = max(len(moments.weight) for moments in self.guided.values())
        if len(self.sources) == 1:
            return {"text": first.text, "fingerprint": first.fingerprint, "tokens": first.tokens, "seed": first.seed, **gaps}

        def joined(field: str) -> str:
            return " + ".join(str(getattr(source, field)) for source in self.sources)

        texts = {"text": joined("text"), "fingerprint": joined("fingerprint")}
        return {**texts, "tokens": self.tokens, "seed": joined("seed"), **gaps}

    def __add__(self, other: "CalibrationStats") -> "CalibrationStats":
        if {*self, *self.unreached} != {*other, *other.unreached}:
            raise ModelError(
                f"statistics of {len(self)} and of {len(other)} layers do not add up; calibrate the same layers of one model."
            )
        sums: dict[tuple[int, int], LayerStats] = {}
        layers = {}
        for name in {**self._layers, **other._layers}:
            if name not in self or name not in other:  # an expert that only one of the texts reached
                layers[name] = self._layers.get(name) or other[name]
                continue
            pair = (id(self[name]), id(other[name]))  # layers that share an object go on sharing one
            if pair not in sums:
                sums[pair] = self[name] + other[name]
            layers[name] = sums[pair]
        unreached = {name: cols for name, cols in self.unreached.items() if name in other.unreached}
        return CalibrationStats(layers, self.sources + other.sources, unreached, self._add_guided(other))

    def _add_guided(self, other: "CalibrationStats") -> dict[str, GuidedMoments]:
        """Guided moments of both texts; ModelError where only one of them has any, or the groups differ."""
        counts = [{len(moments.weight) for moments in stats.guided.values()} for stats in (self, other)]
        if counts[0] != counts[1]:
            first, second = (" and ".join(map(str, sorted(count))) or "no" for count in counts)
            raise ModelError(
                f"guided moments of {first} and of {second} groups do not add up; calibrate both texts with the same guided=."
            )
        both = {**self.guided, **other.guided}
        shared = self.guided.keys() & other.guided.keys()
        return {name: self.guided[name] + other.guided[name] if name in shared else both[name] for name in both}


def is_sparse(layer_tokens: int, cols: int, tokens: int) -> bool:
    """Whether a layer saw only a part of a text's tokens, and fewer than it has inputs.

    The second moment of fewer tokens than inputs is singular: it says nothing about some directions of the input, in which
    errors then seem to cost nothing but the damping.
    """
    return layer_tokens < min(cols, tokens)


def list_gaps(unreached: Iterable[str], sparse: Mapping[str, int]) -> dict[str, Any]:
    """What a text did not reach, for facts: nothing where it reached all."""
    gaps = {"unreached": list(unreached), "sparse": dict(sparse)}
    return {name: layers for name, layers in gaps.items() if layers}


def calibrate(
    model: "ModelHandle",
    text: "Text",
    *,
    tokens: int = DEFAULT_TOKENS,
    seed: int = 0,
    layers: Sequence[str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    store: Store | None = None,
    guided: int = 0,
) -> CalibrationStats:
    """Measure the inputs of a model's layers on a text: second moment, mean and largest magnitude of every channel.

    Documents are taken in an order drawn by `seed`, each from its own first token, in windows of at most min(context, 2048)
    tokens; the last one is cut so that `tokens` is met exactly.

    Args:
        model: A model from `wb.open_model`.
        text: A text from `wb.text`.
        tokens: How many tokens to read; all of a shorter text.
        seed: Draws the order of the documents.
        layers: Names of the layers, all of the blocks when absent; a token embedding, which has no input, is left out.
        on_progress: Called with (tokens read, `tokens`) after each window.
        store: Where statistics of the same weights, text, tokens, seed and layers are found, and new ones are kept.
        guided: Also measure moments weighted by the loss, from a backward pass, for so many groups of each layer's output rows:
            for recipes with this setting. 0 measures none.

    Returns:
        Statistics by layer name: `moment [cols, cols]`, `mean [cols]` and `absmax [cols]`, float32; `guided` has the weighted
        moments by layer name, see `GuidedMoments`.

    Raises:
        ModelError: For unknown layers, encoder-decoders and inputs that are not finite; with `guided` also for models that
            predict no next token.

    Example:
        >>> import workbench as wb
        >>> stats = wb.calibrate(wb.open_model("builtin"), wb.text("calibration"), tokens=256)
        >>> stats["model.layers.0.mlp.down_proj"].moment.shape
        torch.Size([768, 768])
    """
    check_seed(seed, ModelError)
    if tokens < 1:
        raise ModelError(f"{tokens} tokens to calibrate on; use 1 or more.")
    names = model.layer_names if layers is None else [name for name in layers if model.layer(name).role != "embedding"]
    if model.config.is_encoder_decoder:
        raise ModelError(
            f"{model.source!r} is an encoder-decoder, which does not run on plain text; quantize its layers without statistics."
        )
    if not names:
        raise ModelError("no layers to calibrate; give at least one that is not an embedding, or None for all.")
    if guided < 0:
        raise ModelError(f"{guided} groups of rows for guided moments; use 1 or more, or 0 for none.")
    made_from = ("calibration", model.fingerprint, text.fingerprint, tokens, seed, names)
    entry_key = compute_key(*made_from, guided) if guided else compute_key(*made_from)
    if store is not None and (entry := store.get(entry_key)) is not None:
        return deserialize_stats(entry)
    cut = list(iterate_windows(model, text, tokens, seed))
    token_count = sum(ids.shape[1] for ids in cut)

    def tell(share: float) -> None:
        if on_progress is not None:
            on_progress(round(share * token_count), tokens)

    weights: Mapping[str, TokenWeights] = {}
    if guided:  # the backward pass takes about twice as long as what follows
        weights = measure_token_weights(model, dict.fromkeys(names, guided), cut, seed=seed, on_share=lambda done: tell(done / 2))
    sizes = {name: (model.layer(name).rows, model.layer(name).cols) for name in weights}
    by_block = model.streams or sum(count_bytes(*size, guided) for size in sizes.values()) > GUIDED_BYTES
    collectors = Collectors({name: cols for name, (_, cols) in sizes.items()}, weights, by_block=by_block)
    measure = _measure_by_block if by_block else _measure_by_window
    measure(model, names, cut, (lambda done: tell((1 + done) / 2)) if guided else tell, collectors)
    measured = {name: collectors.layers[name] for name in names if name in collectors.layers}
    unreached = {name: model.layer(name).cols for name in names if name not in measured}
    stats = CalibrationStats(measured, [Source(text.name, text.fingerprint, token_count, seed)], unreached, collectors.guided)
    if store is not None and not by_block:  # a streamed model's statistics are larger than what the store may hold
        what = f"{model.source}: {len(names)} layers on {token_count:,} tokens of {text.name}"
        store.put(entry_key, *serialize_stats(stats), kind="calibration", what=what)
    return stats


class Collectors:
    """What is measured of layers, plain and guided: `layers` and `guided` grow as layers are finished."""

    def __init__(self, cols: Mapping[str, int], weights: Mapping[str, TokenWeights], *, by_block: bool) -> None:
        self.cols, self.weights, self.keep = cols, weights, spill if by_block else None
        self.layers: dict[str, LayerStats] = {}
        self.guided: dict[str, GuidedMoments] = {}

    def measure(self, modules: Mapping[str, nn.Module], run: Callable[[], None]) -> None:
        """Measure the inputs of these layers while `run` runs the model on all windows."""
        plain = Collector()
        guided = GuidedCollector({name: (self.cols[name], self.weights[name]) for name in modules if name in self.weights})
        with torch.no_grad(), plain.watching(modules), guided.watching(modules):
            run()
        self.layers |= plain.stats(list(modules), self.keep)
        self.guided |= guided.moments(self.keep)


def _measure_by_window(
    model: "ModelHandle",
    names: Sequence[str],
    cut: Sequence[Tensor],
    on_share: Callable[[float], None],
    collectors: Collectors,
) -> None:
    """Statistics of all layers at once, window after window through the model in memory."""
    total = sum(ids.shape[1] for ids in cut)

    def run() -> None:
        token_count = 0
        for ids in cut:
            model.run(ids)
            token_count += ids.shape[1]
            on_share(token_count / total)

    collectors.measure({name: model.module.get_submodule(name) for name in names}, run)


def _measure_by_block(
    model: "ModelHandle",
    names: Sequence[str],
    cut: Sequence[Tensor],
    on_share: Callable[[float], None],
    collectors: Collectors,
) -> None:
    """The same with one block's weights and sums in memory; finished statistics are kept on disk."""
    missing = set(names)
    last = model.head_name if model.head_name in missing else None
    steps = len(model.block_names) + (last is not None)
    for number, (layers, run) in enumerate(model.run_blocks(cut, last)):

        def run_all(number: int = number, run: Callable[[int], None] = run) -> None:
            for window in range(len(cut)):
                run(window)
                on_share((number + (window + 1) / len(cut)) / steps)

        collectors.measure({name: module for name, module in layers.items() if name in missing}, run_all)


def serialize_stats(stats: CalibrationStats) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Statistics as tensors and facts for a store; what layers share is written once."""
    shared = list({id(layer_stats): layer_stats for layer_stats in stats.values()}.values())
    number = {id(layer_stats): index for index, layer_stats in enumerate(shared)}
    tensors = {f"{i}.{part}": getattr(layer, part) for i, layer in enumerate(shared) for part in ("moment", "mean", "absmax")}
    facts = {
        "layers": {name: number[id(layer_stats)] for name, layer_stats in stats.items()},
        "tokens": [layer_stats.tokens for layer_stats in shared],
        "sources": [asdict(source) for source in stats.sources],
        "unreached": stats.unreached,
        "guided": {name: moments.tokens for name, moments in stats.guided.items()},
    }
    guided = {f"{name}.{part}": getattr(g, part) for name, g in stats.guided.items() for part in GUIDED_TENSORS}
    return {**tensors, **guided}, facts


def deserialize_stats(entry: Entry) -> CalibrationStats:
    """The inverse of `serialize_stats`."""
    read, facts = entry.tensors, entry.facts
    shared = [
        LayerStats(read[f"{i}.moment"], read[f"{i}.mean"], read[f"{i}.absmax"], tokens)
        for i, tokens in enumerate(facts["tokens"])
    ]
    layers = {name: shared[index] for name, index in facts["layers"].items()}
    guided = {
        name: GuidedMoments(**{part: read[f"{name}.{part}"] for part in GUIDED_TENSORS}, tokens=tokens)
        for name, tokens in facts.get("guided", {}).items()
    }
    return CalibrationStats(layers, [Source(**source) for source in facts["sources"]], facts.get("unreached"), guided)


def iterate_windows(model: "ModelHandle", text: "Text", tokens: int, seed: int) -> Iterator[Tensor]:
    """Token ids `[1, T]` of the documents in drawn order, `tokens` in all where the text has as many."""
    order = torch.randperm(len(text.documents), generator=torch.Generator().manual_seed(seed)).tolist()
    left = tokens
    for index in order:
        for ids in model.encode(text.documents[index])[:, :left].split(min(model.context, WINDOW), dim=1):
            left -= ids.shape[1]
            yield ids
        if left == 0:
            return
