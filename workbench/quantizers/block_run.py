"""One transformer block on the calibration text: which layers share an input, what they are fed, and what comes out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from workbench.calibration import Collector
from workbench.kernels.linear import PackedLinear
from workbench.kernels.packed import Packed
from workbench.kernels.reference.rounding import rounded_bits
from workbench.models.blocks import Call
from workbench.quantizers.curvature import damped

DAMPING = 0.01  # share of the mean diagonal; text is finite, and directions it hardly shows must not move weights


@dataclass(frozen=True)
class Seen:
    """A layer's input x̂ in the quantized model, and x, what it would be in the original: E[x̂ x̂ᵀ] and E[x x̂ᵀ], `[cols, cols]`."""

    moment: Tensor
    cross: Tensor

    def aim(self, weight: Tensor) -> Tensor:
        """The matrix that, applied to x̂, comes nearest to `weight` applied to x: W E[x x̂ᵀ] E[x̂ x̂ᵀ]⁻¹, both damped alike.

        Quantizing this instead of W lets every layer repair what the layers before it lost (as GPTAQ, arXiv 2504.02692, does
        column by column inside its feedback). Where nothing was lost, x̂ = x, it is W itself.
        """
        if torch.equal(self.moment, self.cross):
            return weight
        right = damped(self.moment, DAMPING)
        left = self.cross.double() + (right - self.moment.double())
        return torch.linalg.solve(right, (weight.double() @ left).mT).mT.float()


@dataclass(frozen=True)
class BlockRun:
    """A block's module with its layers' modules by name, and each window's call.

    `hidden` come into the block in the quantized model, `full` in the original; `original` are the block's parameters before
    anything in it is quantized.
    """

    block: nn.Module
    layers: Mapping[str, nn.Module]
    calls: Sequence[Call]
    hidden: Sequence[Tensor]
    full: Sequence[Tensor]
    original: Mapping[str, Tensor]

    def outputs(self) -> list[Tensor]:
        """The hidden states after the block as it is now."""
        with torch.no_grad():
            return [call.run(self.block, hidden) for call, hidden in zip(self.calls, self.hidden, strict=True)]

    def full_outputs(self) -> list[Tensor]:
        """The hidden states after the original block."""
        with torch.no_grad():
            return [call.run(self.block, full, self.original) for call, full in zip(self.calls, self.full, strict=True)]

    def inputs(self) -> list[list[str]]:
        """The layers by the input that they read, in the order in which they run; layers that no token reached come last."""
        collector = Collector()
        with collector.watching(self.layers), torch.no_grad():
            self.calls[0].run(self.block, self.hidden[0])
        groups: dict[str, list[str]] = {}
        for name in self.layers:
            groups.setdefault(collector.leader.get(name, name), []).append(name)
        order = [*collector.sums, *(name for name in groups if name not in collector.sums)]
        return [groups[leader] for leader in order]

    def seen(self, layer: str) -> Seen | None:
        """What comes into a layer with the block as it is now, beside what would; None where no token reached it."""
        return self.all_seen([layer])[layer]

    def all_seen(self, layers: Iterable[str]) -> dict[str, Seen | None]:
        """The same for several layers at once."""
        sums = {name: SeenSums() for name in layers}
        with ExitStack() as hooks, torch.no_grad():
            caught = {name: hooks.enter_context(caught_inputs(self.layers[name])) for name in sums}
            for call, hidden, full in zip(self.calls, self.hidden, self.full, strict=True):
                call.run(self.block, hidden)
                call.run(self.block, full, self.original)
                for name, inputs in caught.items():
                    sums[name].add(inputs)
                    inputs.clear()
        return {name: own.mean() for name, own in sums.items()}


class SeenSums:
    """Running sums of what comes into a layer, window by window."""

    def __init__(self) -> None:
        self.moment = self.cross = torch.zeros(())
        self.tokens = 0

    def add(self, inputs: Sequence[Tensor]) -> None:
        """Count one window's inputs in the quantized and in the original model, `[tokens, cols]` each."""
        if len(inputs) == 2 and inputs[0].shape == inputs[1].shape:  # a router may send other tokens to an expert
            real, wanted = inputs
            self.moment = self.moment + (real.mT @ real).double()
            self.cross = self.cross + (wanted.mT @ real).double()
            self.tokens += len(real)

    def mean(self) -> Seen | None:
        """What was seen, None where no token came."""
        if not self.tokens:
            return None
        return Seen((self.moment / self.tokens).float(), (self.cross / self.tokens).float())


@contextmanager
def caught_inputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """A list that every input of `module` is appended to, as `[tokens, cols]`."""
    caught: list[Tensor] = []
    hook = module.register_forward_pre_hook(lambda _module, args: caught.append(args[0].reshape(-1, args[0].shape[-1])))
    try:
        yield caught
    finally:
        hook.remove()


@contextmanager
def rounded_inputs(module: nn.Module, packed: Packed) -> Iterator[None]:
    """Run a layer that rounds its inputs on its stored form, as long as it has the weight that it has now; others stay."""
    if rounded_bits(packed) is None:
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
