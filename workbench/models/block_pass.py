"""Forward passes of many windows of text, suspended together before every block.

The model's own forward pass runs for each window in a coroutine of its own (a greenlet); whenever it comes to a block it waits.
Then one block's weights serve all windows before the next block is needed, and everything that a family does around its blocks
(masks, positions, states that skip blocks, the last norm and the head) is its own code, run once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.models.forward import read_tokens, translate_run_errors

HIDDEN = ("hidden_states", "inputs", "x")  # how families name a block's first argument when they pass it by name


@dataclass(frozen=True)
class Call:
    """One call of a block: its arguments as the model prepares them, hidden states among them."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def hidden(self) -> Tensor:
        """The hidden states `[1, T, width]` that come in."""
        return self.args[0] if self.args else self.kwargs[self._name]

    @property
    def _name(self) -> str:
        return next(name for name in (*HIDDEN, *self.kwargs) if name in self.kwargs)

    def with_hidden(self, hidden: Tensor) -> "Call":
        """The same call on other hidden states."""
        if self.args:
            return replace(self, args=(hidden, *self.args[1:]))
        return replace(self, kwargs={**self.kwargs, self._name: hidden})

    def outputs(self, block: nn.Module, weights: Mapping[str, Tensor] | None = None) -> Any:
        """What the block returns; `weights` replace parameters by their names in the block, with gradients."""
        args = tuple(map(_copy_if_cache, self.args))
        kwargs = {name: _copy_if_cache(argument) for name, argument in self.kwargs.items()}
        return torch.func.functional_call(block, dict(weights or {}), args, kwargs)

    def run(self, block: nn.Module, hidden: Tensor | None = None, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """The hidden states `[1, T, width]` that the block puts out, for other incoming ones where they are given."""
        call = self if hidden is None else self.with_hidden(hidden)
        return extract_hidden_states(call.outputs(block, weights))


def extract_hidden_states(outputs: Any) -> Tensor:
    """The hidden states in what a block returns: it, or the first of a tuple or list."""
    return outputs[0] if isinstance(outputs, tuple | list) else outputs


def _copy_if_cache(argument: Any) -> Any:
    """An argument that a call may write into: a cache, which some families make although none is asked for, as a copy."""
    from transformers import Cache

    return deepcopy(argument) if isinstance(argument, Cache) else argument


class BlockPass:
    """One forward pass over all `windows` of token ids `[1, T]`, halted before a block.

    `calls` are what the block named `block` is called with, one for each window; `block` is None once all have passed the last
    one, and `results` are then what the model returned. Blocks are visited in the order of `visits`, which all windows share.
    Where `last` names a module behind the blocks (the output head), `block` is None before it, and `calls` are what it is called
    with; `leave` ends the pass.
    """

    def __init__(self, module: nn.Module, blocks: Sequence[str], windows: Sequence[Tensor], last: str | None = None) -> None:
        self._last, blocks = last, [*blocks, *([] if last is None else [last])]
        self._module, self._names = module, {id(module.get_submodule(name)): name for name in blocks}
        self.visits: list[str] = []
        self.results: list[Any] = [None] * len(windows)
        self.calls: list[Call] = []
        self._tracks = [greenlet(self._track(window)) for window in windows]
        self._advance([()] * len(windows))

    @property
    def block(self) -> str | None:
        """The block that comes next, or None at the end."""
        return self.visits[-1] if self.calls and self.visits[-1] != self._last else None

    def advance(self, outputs: Sequence[Any]) -> None:
        """Hand each window what its call returned, and run on to the next block."""
        self._advance([(output,) for output in outputs])

    def leave(self, rows: int) -> None:
        """Run on from the output head of `rows` outputs to the end, on zeros for one token: nobody needs the logits."""
        self._advance([(call.hidden.new_zeros(1).expand(1, 1, rows),) for call in self.calls])

    def _track(self, window: Tensor) -> Callable[[], Any]:
        return lambda: read_tokens(self._module, window)

    def _advance(self, values: Sequence[tuple[Any, ...]]) -> None:
        halts = []
        with torch.no_grad(), self._halting():
            for number, (track, value) in enumerate(zip(self._tracks, values, strict=True)):
                with translate_run_errors(type(self._module).__name__):
                    out = track.switch(*value)
                if track.dead:
                    self.results[number] = out
                else:
                    halts.append(out)
        names = {name for name, _ in halts}
        if len(names) > 1 or len(halts) not in (0, len(self._tracks)):
            raise ModelError("the order of this model's blocks depends on the text; quantize its layers with stats=.")
        self.calls = [call for _, call in halts]
        self.visits += names

    @contextmanager
    def _halting(self) -> Iterator[None]:
        """Blocks halt the coroutines of this pass; called from anywhere else they run as ever."""
        tracks, parent = set(self._tracks), getcurrent()

        def halt(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if getcurrent() not in tracks:
                return type(block).forward(block, *args, **kwargs)
            return parent.switch((self._names[id(block)], Call(args, kwargs)))

        blocks = [self._module.get_submodule(name) for name in self._names.values()]
        for block in blocks:
            block.forward = halt.__get__(block)
        try:
            yield
        finally:
            for block in blocks:
                del block.forward
