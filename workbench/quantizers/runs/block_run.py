"""One transformer block on the calibration text: layers that share an input, their inputs, and the output."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from workbench.guided_moments import GuidedMoments, GuidedSums, TokenWeights
from workbench.input_sums import Collector
from workbench.kernels.formats.rounding import find_rounding_bits
from workbench.kernels.matmul.packed_linear import PackedLinear
from workbench.kernels.packing.packed import Packed
from workbench.memory import spill
from workbench.models.block_pass import Call
from workbench.moment_sums import add_product, choose_sum_dtype
from workbench.quantizers.curvature import damp_moment
from workbench.quantizers.shrinkage import shrink_moment

BATCH_BYTES = 1 << 28  # of experts' moments that are measured in one run through the block
DAMPING = 0.01  # share of the mean diagonal; text is finite, and directions it hardly shows must not move weights


@dataclass(frozen=True)
class Seen:
    """A layer's input x̂ in the quantized model, and x, what it would be in the original: E[x̂ x̂ᵀ] and E[x x̂ᵀ], `[cols, cols]`.

    `cross` is None where the two are not compared. `tokens` is how many inputs these are means of. `guided` are the moments of x̂
    that are weighted by the loss, by the layers that read it.
    """

    moment: Tensor
    cross: Tensor | None
    tokens: int
    guided: Mapping[str, GuidedMoments] = field(default_factory=dict)

    def on_disk(self) -> "Seen":
        """The same with its matrices on disk."""
        guided = {name: replace(moments, groups=spill(moments.groups)) for name, moments in self.guided.items()}
        return Seen(spill(self.moment), None if self.cross is None else spill(self.cross), self.tokens, guided)

    def shrunk(self, strength: float) -> Tensor:
        """E[x̂ x̂ᵀ] mixed with its diagonal, as far as the tokens are few."""
        return shrink_moment(self.moment, self.tokens, strength)

    def aim(self, weight: Tensor, strength: float) -> Tensor:
        """The matrix that, applied to x̂, comes nearest to `weight` applied to x: W E[x x̂ᵀ] E[x̂ x̂ᵀ]⁻¹, both shrunk and damped.

        Quantizing this instead of W lets every layer repair what the layers before it lost (as GPTAQ, arXiv 2504.02692, does
        column by column inside its feedback). Where nothing was lost, x̂ = x, it is W itself.
        """
        if self.cross is None or torch.equal(self.moment, self.cross):
            return weight
        right = damp_moment(self.shrunk(strength), DAMPING)
        left = self.cross.double() + (right - self.moment.double())
        return torch.linalg.solve(right, (weight.double() @ left).mT).mT.float()


@dataclass(frozen=True)
class BlockRun:
    """A block's module with its layers' modules by name, and each window's call in the quantized and in the original model.

    `original` are the block's parameters before anything in it is quantized; `experts` names those layers that see only the
    tokens that are routed to them. A run whose layers never look at the original model has no calls in it. Only where layers
    repair are their inputs in the two models compared. `weights` are those of the layers with guided moments.
    """

    block: nn.Module
    layers: Mapping[str, nn.Module]
    calls: Sequence[Call]
    original_calls: Sequence[Call] = ()
    original: Mapping[str, Tensor] = field(default_factory=dict)
    experts: Collection[str] = ()
    repairs: bool = False
    weights: Mapping[str, TokenWeights] = field(default_factory=dict)

    @property
    def hidden(self) -> list[Tensor]:
        """The hidden states that come into the block in the quantized model."""
        return [call.hidden for call in self.calls]

    def outputs(self) -> list[Any]:
        """What the block as it is now returns in the quantized model."""
        with torch.no_grad():
            return [call.outputs(self.block) for call in self.calls]

    def original_outputs(self) -> list[Any]:
        """What the original block returns in the original model."""
        with torch.no_grad():
            return [call.outputs(self.block, self.original) for call in self.original_calls]

    def inputs(self) -> list[list[str]]:
        """The layers by the input that they read, in the order in which they run; layers that no token reached come last."""
        collector = Collector()
        with collector.watching(self.layers), torch.no_grad():
            for call in self.calls[:1]:
                call.run(self.block)
        groups: dict[str, list[str]] = {}
        for name in self.layers:
            groups.setdefault(collector.leader.get(name, name), []).append(name)
        order = [*collector.sums, *(name for name in groups if name not in collector.sums)]
        return [groups[leader] for leader in order]

    def inputs_of(self, layer: str) -> Seen | None:
        """What comes into a layer with the block as it is now, beside what would; None where no token reached it."""
        return self.all_seen([layer])[layer]

    def all_seen(self, layers: Iterable[str], guided: Mapping[str, Sequence[str]] | None = None) -> dict[str, Seen | None]:
        """The same for several layers at once; `guided` names for a layer those that read its input and get guided moments."""
        guided = guided or {}
        weights = {name: {other: self.weights[other] for other in guided.get(name, ())} for name in layers}
        sums = {name: SeenSums(weights[name], paired=self.repairs and name not in self.experts) for name in weights}
        with ExitStack() as hooks, torch.no_grad():
            caught = {name: hooks.enter_context(_catch_inputs(self.layers[name])) for name in sums}
            for number, call in enumerate(self.calls):
                call.run(self.block)
                real, targets = _take_inputs(caught), {}
                if any(layer_sums.paired for layer_sums in sums.values()):
                    self.original_calls[number].run(self.block, weights=self.original)
                    targets = _take_inputs(caught)
                for name, inputs in real.items():
                    sums[name].add(inputs, targets.get(name))
        return {name: layer_sums.mean() for name, layer_sums in sums.items()}

    def batches(self) -> Iterator[list[list[str]]]:
        """The groups of `inputs`, those at once whose inputs are measured at once: an expert depends on no other of its stack."""
        batch: list[list[str]] = []
        for group in self.inputs():
            other = self._stack(group) is None or not batch or self._stack(group) != self._stack(batch[0])
            if other or self._moment_bytes([*batch, group]) > BATCH_BYTES:
                if batch:
                    yield batch
                batch = []
            batch.append(group)
        if batch:
            yield batch

    def _stack(self, group: Sequence[str]) -> str | None:
        return group[0].rpartition(".")[0] if group[0] in self.experts else None

    def _moment_bytes(self, groups: Sequence[Sequence[str]]) -> int:
        widths = [int(cast(Any, self.layers[group[0]]).in_features) for group in groups if group[0] in self.experts]
        return 8 * sum(width * width for width in widths)


class SeenSums:
    """Running sums of what comes into a layer, window by window.

    `paired` says that its inputs in the two models belong to the same tokens. A router may send other tokens to an expert; its
    weights are then the aim, and what the layers before it lost is not repaired there.
    """

    def __init__(self, weights: Mapping[str, TokenWeights] | None = None, *, paired: bool = True) -> None:
        self.paired, self.weights = paired, dict(weights or {})
        self.guided: dict[str, GuidedSums] = {}
        self.moment: Tensor | None = None
        self.cross: Tensor | None = None
        self.tokens = 0

    def add(self, real: Tensor, targets: Tensor | None) -> None:
        """Count one window's inputs in the quantized and in the original model, `[tokens, cols]` each."""
        self.paired = self.paired and targets is not None and targets.shape == real.shape
        self.moment = _add_to(self.moment, real, real)
        self.cross = _add_to(self.cross, targets, real) if self.paired and targets is not None else None
        self.tokens += len(real)
        for name, weights in self.weights.items():
            if name not in self.guided:
                self.guided[name] = GuidedSums(real.shape[1], weights)
            self.guided[name].add(real)

    def mean(self) -> Seen | None:
        """What was seen, None where no token came; the sums are used up."""
        if not self.tokens or self.moment is None:
            return None
        cross = None if self.cross is None else self.cross.div_(self.tokens).float()
        guided = {name: sums.mean() for name, sums in self.guided.items()}
        return Seen(self.moment.div_(self.tokens).float(), cross, self.tokens, guided)


def _add_to(total: Tensor | None, left: Tensor, right: Tensor) -> Tensor:
    """A sum with leftᵀ right added in place; None is that of nothing."""
    cols = right.shape[1]
    total = torch.zeros(cols, cols, dtype=choose_sum_dtype(cols)) if total is None else total
    add_product(total, left, right)
    return total


def _take_inputs(caught: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    """The inputs caught so far as one tensor a layer; the lists are emptied."""
    stacked = {name: torch.cat(inputs) for name, inputs in caught.items() if inputs}
    for inputs in caught.values():
        inputs.clear()
    return stacked


@contextmanager
def _catch_inputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """A list that every input of `module` is appended to, as `[tokens, cols]`."""
    caught: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _module, args: caught.append(args[0].reshape(-1, args[0].shape[-1])))
    try:
        yield caught
    finally:
        hook.remove()


@contextmanager
def round_inputs(module: nn.Module, packed: Packed) -> Iterator[None]:
    """Run a layer that rounds its inputs on its stored form, as long as it has the weight that it has now; others stay."""
    if find_rounding_bits(packed) is None:
        yield
        return
    weight, stored = module.weight, PackedLinear.instead_of(module, packed)

    def run(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return stored(args[0]) if module.weight is weight else output  # the original's pass brings the original weight

    hook = module.register_forward_hook(run)
    try:
        yield
    finally:
        hook.remove()
