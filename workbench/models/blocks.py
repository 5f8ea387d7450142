"""A model as a row of transformer blocks, each run alone on kept hidden states: one block's weights are in memory at a time."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from workbench.models import architecture
from workbench.models.handle import ModelHandle
from workbench.models.layers import split_name


@dataclass(frozen=True)
class Call:
    """What a block is called with beside the hidden states: masks and positions, as the model prepares them."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def run(self, block: nn.Module, hidden: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """The block's output `[1, T, width]`; `weights` replace parameters by their names in the block, with gradients."""
        out = torch.func.functional_call(block, dict(weights or {}), (hidden, *self.args), dict(self.kwargs))
        return out[0] if isinstance(out, tuple) else out


@dataclass(frozen=True)
class Window:
    """One window of text: its hidden states `[1, T, width]` before the first block, and each block's call."""

    hidden: Tensor
    calls: tuple[Call, ...]


class BlockRow:
    """The transformer blocks of an opened model, in order.

    `names` are the blocks' module names, `layers[i]` the names of the layers in block i. The module behind it is this object's
    own: nothing that happens here is seen by others who use the model.
    """

    def __init__(self, model: ModelHandle) -> None:
        self.model = model
        self.layers: list[list[str]] = []
        self.names: list[str] = []
        for layer in model.layer_names:
            name = block_name(layer)
            if name not in self.names:
                self.names.append(name)
                self.layers.append([])
            self.layers[self.names.index(name)].append(layer)
        self._module = architecture.empty_module(model.config)
        others = model.other_tensors(model.layer_names)
        self._dtypes = {name: tensor.dtype for name, tensor in others.items()}
        architecture.fill(self._module, others.items())

    def windows(self, ids: Iterable[Tensor]) -> list[Window]:
        """Token ids `[1, T]` up to the first block; blocks are not run, only asked what they are called with."""
        base = getattr(self._module, getattr(self._module, "base_model_prefix", ""), self._module)
        blocks = [self._module.get_submodule(name) for name in self.names]
        found = []
        for window in ids:
            seen: list[tuple[Tensor, Call]] = []
            for block in blocks:
                block.forward = partial(remember, seen)
            try:
                with torch.no_grad():
                    base(window, use_cache=False)
            finally:
                for block in blocks:
                    del block.forward
            found.append(Window(seen[0][0], tuple(call for _, call in seen)))
        return found

    @contextmanager
    def block(self, index: int) -> Iterator[nn.Module]:
        """Block `index` with its weights read from the checkpoint, float32; they are let go on leaving."""
        try:
            for name in self.layers[index]:
                self.put(name, self.model.weight(name))
            yield self._module.get_submodule(self.names[index])
        finally:
            for name in self.layers[index]:
                self.put(name, torch.empty(self.model.layer(name).rows, self.model.layer(name).cols, device="meta"))

    def put(self, name: str, weight: Tensor) -> None:
        """Give layer `name` the weight `[rows, cols]`."""
        oriented = self.model.layer(name).orient(weight.to(torch.float32))
        self._module.get_submodule(name).weight = nn.Parameter(oriented, requires_grad=False)

    def vectors(self, index: int) -> dict[str, Tensor]:
        """Gains of norms and biases of block `index` by their names in it, in the type in which the model stores them."""
        named = self._module.get_submodule(self.names[index]).named_parameters()
        return {name: p.detach().to(self._dtypes[f"{self.names[index]}.{name}"]) for name, p in named if p.ndim == 1}

    def put_tensor(self, name: str, tensor: Tensor) -> None:
        """Give the parameter `name` of a block other values."""
        architecture.replace_parameters(self._module, {name: tensor})

    def within(self, index: int, layer: str) -> str:
        """A layer's name inside its block."""
        return layer.removeprefix(f"{self.names[index]}.")


def remember(seen: list[tuple[Tensor, Call]], hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Stand in for a block's forward pass: note the call and pass the hidden states on."""
    seen.append((hidden, Call(args, kwargs)))
    return hidden


def block_name(layer: str) -> str:
    """The block of a layer: "model.layers.3.mlp.up_proj" to "model.layers.3"."""
    place = split_name(layer)
    assert place is not None, layer  # layers are found by their place in a block
    return layer.removesuffix(f".{place[1]}")
