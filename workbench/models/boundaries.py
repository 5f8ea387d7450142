"""Hidden states between the blocks of a model, stored for a text, from which the model is run with changed layers.

The module itself runs, with stand-ins for the blocks before the first changed one: what a family does around its blocks
(positions, masks, last norm, head) is its own code.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import ModelError, WorkbenchWarning
from workbench.memory import spill
from workbench.models.block_pass import Call, extract_hidden_states
from workbench.models.handle import ModelHandle
from workbench.models.layers import find_block_name

Swap = Tensor | nn.Module | None


class Boundaries:
    """What enters and leaves every block of `model` for each window of token ids `[1, T]`, and logits from there.

    `base` are layers that are swapped from the start, as in `ModelHandle.swapped`; the kept states are those of the model with
    them. Kept states are copies, and copies are handed out: a block that writes into its input harms nobody.
    """

    def __init__(
        self, model: ModelHandle, windows: Iterable[Tensor], base: Mapping[str, Tensor | nn.Module] | None = None
    ) -> None:
        self.model, self.base = model, dict(base or {})
        self.windows = tuple(windows)
        self.blocks = list(dict.fromkeys(find_block_name(layer) for layer in model.layer_names))
        self._names = {*model.layer_names, *dict(model.module.named_parameters(remove_duplicate=False))}
        self._lm = model.language_model()
        self._keep = spill if model.streams else Tensor.clone
        self._repeats = self._hands_on_more = False
        self._window_states = [self._run(ids) for ids in self.windows]
        if model.replays is None:
            model.replays = self._agrees()

    @property
    def bytes(self) -> int:
        """Memory of the kept states: (blocks + 1) × tokens × width × 4."""
        return sum(extract_hidden_states(state).nbytes for window_states in self._window_states for state in window_states)

    def first_block(self, names: Iterable[str]) -> int:
        """Index of the earliest block with one of these layers or parameters, the number of blocks where there are none; what
        is in no block counts for the first (as the embedding), but the output head comes behind the last."""
        return min((self._block(name) for name in names), default=len(self.blocks))

    def _block(self, name: str) -> int:
        if name == self.model.head_name:
            return len(self.blocks)
        layer_name = name if name in self._names else self.model.layer(name).name
        return next((index for index, block in enumerate(self.blocks) if layer_name.startswith(f"{block}.")), 0)

    def locate(self, name: str) -> tuple[int | None, str]:
        """The block of a layer or parameter and its name inside: a layer's matrix, or the owner and the parameter's own name.

        None is the block of a layer outside of the blocks.
        """
        if name in self.model.layer_names or name in self.model.optional_names:
            layer = self.model.layer(name)
            return layer.block, layer.matrix
        block = self._block(name)
        return block, " ".join(name.removeprefix(f"{self.blocks[block]}.").rsplit(".", 1))

    def logits(self, window: int, swaps: Mapping[str, Swap] | None = None) -> Tensor:
        """Logits float32 `[1, T, V]` of one window with layers swapped on top of `base`; None is the opened model's own.

        Runs from the earliest changed block on; without swaps only what comes after the last block.
        """
        changes = dict(swaps or {})
        replaced = {name: new for name, new in {**self.base, **changes}.items() if new is not None}
        start = self.first_block(changes) if self.model.replays else 0
        try:
            return self._run_from(start, window, replaced)
        except ModelError:
            if not start:
                raise
        logits = self._run_from(0, window, replaced)  # a later block asks for more than hidden states, or this raises as well
        self.model.replays = False
        self._warn("pass on more than hidden states")
        return logits

    def _run_from(self, start: int, window: int, replaced: Mapping[str, Tensor | nn.Module]) -> Tensor:
        with self.model.swapped(replaced), self._standing_in(window, start):
            return self._lm.logits(self.windows[window])

    def _agrees(self) -> bool:
        """Whether running on from the middle gives what running from the start gives; a warning says where it does not.

        Blocks of some families hand each other more than hidden states (keys and values of earlier blocks, for one), or run
        several times for one text: what a later run gets from a changed block is then no kept state.
        """
        if not self._repeats and self._replays():
            return True
        self._warn("run more than once for a text" if self._repeats else "pass on more than hidden states")
        return False

    def _warn(self, why: str) -> None:
        warnings.warn(
            f"the blocks of {self.model.source!r} {why}; "
            f"every change therefore runs the model from its first block, which is slower.",
            WorkbenchWarning,
            stacklevel=4,
        )

    def _replays(self) -> bool:
        """Whether the shortest window's logits are the same with kept states in the place of blocks."""
        shortest = min(range(len(self.windows)), key=lambda number: self.windows[number].shape[1])
        with self.model.swapped(self.base):
            expected = self._lm.logits(self.windows[shortest])
            for start in range(1, len(self.blocks) + 1) if self._hands_on_more else (len(self.blocks) // 2, len(self.blocks)):
                try:
                    with self._standing_in(shortest, start):
                        logits = self._lm.logits(self.windows[shortest])
                except ModelError:
                    return False  # what stands in for a block does not give all that the next one asks for
                if not torch.allclose(logits, expected, rtol=0, atol=1e-4 * float(expected.std()), equal_nan=True):
                    return False
        return True

    def _copy(self, out: Any) -> Any:
        """A block's output with its hidden states kept; what stands beside them, such as attention weights, is left out."""
        if isinstance(out, tuple | list):
            return _wrap_hidden_states(out, self._keep(out[0]))
        return self._keep(out)

    def states(self, index: int) -> Tensor:
        """Hidden states `[tokens, width]` before block `index` (one past the last: after it), window after window."""
        return torch.cat([extract_hidden_states(window_states[index]).flatten(0, 1) for window_states in self._window_states])

    def _run(self, ids: Tensor) -> list[Any]:
        """What the first block gets and each block puts out, kept before the next one sees it."""
        entered: list[Tensor] = []
        outputs: dict[str, Any] = {}

        def enter(_block: nn.Module, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if not entered:
                entered.append(self._keep(Call(inputs, kwargs).hidden))

        def leave(name: str, _block: nn.Module, _inputs: Any, out: Any) -> None:
            self._repeats |= name in outputs
            self._hands_on_more |= isinstance(out, tuple | list) and any(part is not None for part in out[1:])
            outputs[name] = self._copy(out)

        with self.model.swapped(self.base), ExitStack() as hooks:
            for name in self.blocks:
                block = self.model.module.get_submodule(name)
                hooks.callback(block.register_forward_pre_hook(enter, with_kwargs=True).remove)
                hooks.callback(block.register_forward_hook(partial(leave, name)).remove)
            self._lm.logits(ids)
        self.blocks = list(outputs)  # without those that no text reaches, in the order in which they run
        return [*entered, *outputs.values()]

    @contextmanager
    def _standing_in(self, window: int, start: int) -> Iterator[None]:
        """Blocks before `start` do not run: each hands on what it put out in the kept run."""
        blocks = [self.model.module.get_submodule(name) for name in self.blocks[:start]]
        for block, state in zip(blocks, self._window_states[window][1:], strict=False):
            # a block's own forward is found on its class: the one set here is removed without a trace
            block.forward = partial(_replay_output, state)
        try:
            yield
        finally:
            for block in blocks:
                del block.forward


def _copy_block_output(out: Any) -> Any:
    """A block's output with its hidden states copied; what stands beside them, such as attention weights, is left out."""
    return _wrap_hidden_states(out, out[0].clone()) if isinstance(out, tuple | list) else out.clone()


def _wrap_hidden_states(out: tuple[Any, ...] | list[Any], hidden: Tensor) -> tuple[Any, ...] | list[Any]:
    """What a block returned with `hidden` in the first place and nothing in the others."""
    parts = [hidden, *(None for _ in out[1:])]
    return parts if isinstance(out, list) else tuple(parts)


def _replay_output(output: Any, *_args: Any, **_kwargs: Any) -> Any:
    """Stand in for a block's forward pass."""
    return _copy_block_output(output)
