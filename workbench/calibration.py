"""Calibration statistics of a layer's inputs on text: second moment, mean and largest magnitude of every channel.

Text runs through the model document by document; hooks see the input of every layer. Statistics of two texts add up.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.memory import spill
from workbench.moment_sums import add_product, choose_sum_dtype, compute_symmetric_mean
from workbench.nonfinite import count_nonfinite
from workbench.seeds import check_seed
from workbench.store import Entry, Store, compute_key

if TYPE_CHECKING:
    from workbench.models.handle import ModelHandle
    from workbench.models.text import Text

DEFAULT_TOKENS = 16_384  # of a text, unless told otherwise
WINDOW = 2048


@dataclass(frozen=True)
class LayerStats:
    """Statistics of one layer's input x over `tokens` tokens, float32.

    `moment [cols, cols]` = E[x xᵀ], `mean [cols]` = E[x], `absmax [cols]` = max |x|.
    """

    moment: Tensor
    mean: Tensor
    absmax: Tensor
    tokens: int

    def __add__(self, other: "LayerStats") -> "LayerStats":
        tokens = self.tokens + other.tokens

        def average(mine: Tensor, theirs: Tensor) -> Tensor:
            return ((mine.double() * self.tokens + theirs.double() * other.tokens) / tokens).float()

        return LayerStats(
            average(self.moment, other.moment),
            average(self.mean, other.mean),
            torch.maximum(self.absmax, other.absmax),
            tokens,
        )


@dataclass(frozen=True)
class Source:
    """One text that went into the statistics: its name and fingerprint, tokens seen, and the seed of the documents' order."""

    text: str
    fingerprint: str
    tokens: int
    seed: int


class CalibrationStats(Mapping[str, LayerStats]):
    """LayerStats by layer name; layers that read the same input (q, k, v; gate, up) share one object. `a + b` adds texts.

    `unreached` are layers that no token of the text came to, such as experts that were never chosen, with their columns.
    """

    def __init__(
        self, layers: Mapping[str, LayerStats], sources: Sequence[Source], unreached: Mapping[str, int] | None = None
    ) -> None:
        self._layers, self.sources, self.unreached = dict(layers), tuple(sources), dict(unreached or {})

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

        `unreached` lists layers that no token came to, `sparse` has the tokens of layers that too few came to (see `is_sparse`).
        """
        first, gaps = self.sources[0], list_gaps(self.unreached, self.sparse)
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
        return CalibrationStats(layers, self.sources + other.sources, unreached)


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

    Returns:
        Statistics by layer name: `moment [cols, cols]`, `mean [cols]` and `absmax [cols]`, float32.

    Raises:
        ModelError: For unknown layers, encoder-decoders and inputs that are not finite.

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
    entry_key = compute_key("calibration", model.fingerprint, text.fingerprint, tokens, seed, names)
    if store is not None and (entry := store.get(entry_key)) is not None:
        return deserialize_stats(entry)
    cut = list(iterate_windows(model, text, tokens, seed))
    token_count = sum(ids.shape[1] for ids in cut)

    def tell(share: float) -> None:
        if on_progress is not None:
            on_progress(round(share * token_count), tokens)

    measure = _measure_by_block if model.streams else _measure_by_window
    measured = measure(model, names, cut, tell)
    unreached = {name: model.layer(name).cols for name in names if name not in measured}
    stats = CalibrationStats(measured, [Source(text.name, text.fingerprint, token_count, seed)], unreached)
    if store is not None and not model.streams:  # a streamed model's statistics are larger than what the store may hold
        what = f"{model.source}: {len(names)} layers on {token_count:,} tokens of {text.name}"
        store.put(entry_key, *serialize_stats(stats), kind="calibration", what=what)
    return stats


def _measure_by_window(
    model: "ModelHandle", names: Sequence[str], cut: Sequence[Tensor], on_share: Callable[[float], None]
) -> dict[str, LayerStats]:
    """Statistics of all layers at once, window after window through the model in memory."""
    collector, token_count, total = Collector(), 0, sum(ids.shape[1] for ids in cut)
    with torch.no_grad(), collector.watching({name: model.module.get_submodule(name) for name in names}):
        for ids in cut:
            model.run(ids)
            token_count += ids.shape[1]
            on_share(token_count / total)
    return collector.stats(names)


def _measure_by_block(
    model: "ModelHandle", names: Sequence[str], cut: Sequence[Tensor], on_share: Callable[[float], None]
) -> dict[str, LayerStats]:
    """The same with one block's weights and sums in memory; finished statistics are kept on disk."""
    missing, done = set(names), dict[str, LayerStats]()
    last = model.head_name if model.head_name in missing else None
    steps = len(model.block_names) + (last is not None)
    for number, (layers, run) in enumerate(model.run_blocks(cut, last)):
        collector = Collector()
        with torch.no_grad(), collector.watching({name: module for name, module in layers.items() if name in missing}):
            for window in range(len(cut)):
                run(window)
                on_share((number + (window + 1) / len(cut)) / steps)
        done |= collector.stats([name for name in layers if name in missing], spill)
    return {name: done[name] for name in names if name in done}


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
    }
    return tensors, facts


def deserialize_stats(entry: Entry) -> CalibrationStats:
    """The inverse of `serialize_stats`."""
    read, facts = entry.tensors, entry.facts
    shared = [
        LayerStats(read[f"{i}.moment"], read[f"{i}.mean"], read[f"{i}.absmax"], tokens)
        for i, tokens in enumerate(facts["tokens"])
    ]
    layers = {name: shared[index] for name, index in facts["layers"].items()}
    return CalibrationStats(layers, [Source(**source) for source in facts["sources"]], facts.get("unreached"))


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


class Sums:
    """Running sums over the inputs of one group of layers, in `choose_sum_dtype`; the inputs of the newest call wait in `newest`.

    `calls` counts the calls of the layer that the group is named after, `members` those of the others that read the same.
    """

    def __init__(self, cols: int) -> None:
        self.moment = torch.zeros(cols, cols, dtype=choose_sum_dtype(cols))
        self.total = torch.zeros(cols, dtype=torch.float64)
        self.absmax = torch.zeros(cols)
        self.tokens = self.calls = 0
        self.newest: Tensor | None = None
        self.members: dict[str, int] = {}

    def add(self, x: Tensor) -> None:
        """Count the inputs `x [tokens, cols]` of one more call."""
        self.settle()
        self.calls += 1
        # a copy, since the model may write over it; without tokens: an expert that none of this text was routed to
        self.newest = x.clone() if len(x) else None

    def settle(self) -> None:
        """Add what the newest call brought."""
        if self.newest is not None:
            add_product(self.moment, self.newest, self.newest)
            self.total += self.newest.sum(0, dtype=torch.float64)
            self.absmax = torch.maximum(self.absmax, self.newest.abs().amax(0))
            self.tokens += len(self.newest)
        self.newest = None

    def part_with(self, name: str) -> "Sums":
        """Sums of its own for a member that no longer reads what the group reads: over the calls that they had in common."""
        part = Sums(len(self.total))
        part.calls = self.members.pop(name)
        part.moment, part.total, part.absmax, part.tokens = self.moment.clone(), self.total.clone(), self.absmax, self.tokens
        part.newest = self.newest if part.calls == self.calls else None
        part.settle()
        return part

    def stats(self) -> LayerStats:
        """The sums as means, which are used up; the moment exactly symmetric."""
        self.settle()
        moment = compute_symmetric_mean(self.moment, self.tokens)
        return LayerStats(moment, (self.total / self.tokens).float(), self.absmax, self.tokens)


class Collector:
    """Hooks that feed the inputs of layers into Sums; layers that are handed the very same tensor share one.

    A layer joins a group on its first call, when the tensor it receives is the one that the layer before it received, and
    leaves it with sums of its own at the first call in which the two read different tensors (an expert that is called without
    its neighbour, a layer that is called twice). Passes of other threads through the same model are not counted.
    """

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self.leader: dict[str, str] = {}
        self.sums: dict[str, Sums] = {}
        self._last: Tensor | None = None
        self._open: list[str] = []  # the groups that read the last tensor, whose members may still come

    @contextmanager
    def watching(self, modules: Mapping[str, nn.Module]) -> Iterator[None]:
        """Hooks on `modules` for the duration of the context."""
        with ExitStack() as hooks:
            for name, module in modules.items():
                hooks.enter_context(module.register_forward_pre_hook(partial(self._see, name)))
            hooks.callback(self._close)
            yield

    def _see(self, name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if threading.get_ident() != self._thread:
            return
        x = inputs[0]
        if x is not self._last or name in self._open:
            self._close()
        group = next((group for group in self._open if self._shares(name, group)), None)
        if group is not None:
            self.leader[name] = group
            members = self.sums[group].members
            members[name] = members.get(name, 0) + 1
            return
        if self.leader.setdefault(name, name) != name:
            self._separate(name)
        self._last = x
        self._open.append(name)
        self.sums.setdefault(name, Sums(x.shape[-1])).add(x.reshape(-1, x.shape[-1]).float())

    def _shares(self, name: str, group: str) -> bool:
        """Whether a layer that reads the group's newest input has read all its others too."""
        if self.leader.get(name, group) != group:
            return False
        return self.sums[group].members.get(name, 0) == self.sums[group].calls - 1

    def _close(self) -> None:
        """End the newest call of the groups that read the last tensor; members that did not read it leave."""
        for group in self._open:
            sums = self.sums[group]
            for name in [name for name, calls in sums.members.items() if calls < sums.calls]:
                self._separate(name)
            sums.settle()
        self._last, self._open = None, []

    def _separate(self, name: str) -> None:
        self.sums[name] = self.sums[self.leader[name]].part_with(name)
        self.leader[name] = name

    def stats(self, names: Sequence[str], keep: Callable[[Tensor], Tensor] | None = None) -> dict[str, LayerStats]:
        """LayerStats of the layers that saw tokens, one object for each group; the sums are used up.

        `keep` says where each second moment is kept: `spill` keeps it on disk.
        """
        groups: dict[str, LayerStats] = {}
        for name in list(self.sums):
            stats = self.sums.pop(name).stats()
            if count_nonfinite(stats.moment):
                raise ModelError(f"the inputs of layer {name!r} are not finite; the model overflows on this text.")
            groups[name] = stats if keep is None else replace(stats, moment=keep(stats.moment))
        return {name: groups[self.leader[name]] for name in names if name in self.leader}
