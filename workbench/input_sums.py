"""Hooks on the inputs of layers, and running sums over what comes in: second moment, mean and largest magnitude."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.moment_sums import add_product, choose_sum_dtype, compute_symmetric_mean
from workbench.nonfinite import count_nonfinite


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
