"""What plain transformers says about a checkpoint: the figures that each step of the workbench is compared with."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from tests.zoo.configurations import CONTEXT

# parameters of two or more dimensions, and modules that own such, which are no matrices of a linear map
NO_MATRIX = re.compile(r"bias|A_log|lambda|conv|embed|norm|scale|rel_pos|time_mix|^(D|b1|b2|query)$")
NO_MAP = re.compile(r"Norm|Embedding|Position|Convolution")
# matrices that choose, mix or are tensors of more dimensions than a linear map has; no toolkit quantizes them
NO_LAYER = re.compile(
    r"HyperConnection"  # how much of each residual stream a block reads and writes
    r"|Rglru"  # Griffin's gates, one small matrix for each head
    r"|GroupedLinear"  # DeepSeek V4's first half of the output projection: a product of its own for each group of heads
    r"|RelativeLogits"  # what distances count for
    r"|XLNetRelativeAttention"  # `[width, heads, head width]`, multiplied by einsum
)
# what families call the number of their positions; all are drawn so that CONTEXT tokens can be read
LIMITS = ("max_position_embeddings", "max_target_positions", "max_seq_len")
UNLIMITED = 2048
IN_BLOCK = re.compile(r"\.\d+\.")


@dataclass(frozen=True)
class Slot:
    """Where a layer's weight `[out, in]` lies in the module: a parameter, one slice of it, as it is or transposed.

    A slice is one of the first dimension, or so many `rows` of a matrix.
    """

    parameter: nn.Parameter
    index: int | None
    transposed: bool = False
    rows: int = 1

    def read(self) -> Tensor:
        """The weight `[out, in]`."""
        stored = self.parameter.detach()
        if self.index is not None:
            stored = stored[self.index * self.rows : (self.index + 1) * self.rows].squeeze(0)
        return stored.T if self.transposed else stored

    @property
    def place(self) -> tuple[int, int | None]:
        """What two names of the same weight have in common."""
        return id(self.parameter), self.index


class Reference:
    """A checkpoint as transformers loads and runs it, in float32 and without a cache."""

    def __init__(self, folder: Path) -> None:
        module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.module: nn.Module = module.eval().requires_grad_(requires_grad=False)
        self.parameters = dict(self.module.named_parameters(remove_duplicate=False))
        self.modules = dict(self.module.named_modules())
        config = module.config.get_text_config()
        self.window = CONTEXT if any((getattr(config, name, None) or 0) > 0 for name in LIMITS) else UNLIMITED

    @torch.no_grad()
    def logits(self, ids: Tensor) -> Tensor:
        """Logits float32 `[T, V]` of one full pass."""
        return self.module(input_ids=ids, use_cache=False).logits[0].float()

    def windows(self, ids: Tensor) -> list[Tensor]:
        """One document's ids cut so that every token but the first is scored once."""
        return [ids[:, start : start + self.window] for start in range(0, ids.shape[1] - 1, self.window - 1)]

    def loss(self, ids: Tensor) -> float:
        """Mean −log p of every token after the first, nats."""
        losses = [
            nn.functional.cross_entropy(self.logits(window)[:-1].double(), window[0, 1:], reduction="sum")
            for window in self.windows(ids)
        ]
        return float(sum(losses)) / (ids.shape[1] - 1)

    def log_probabilities(self, ids: Tensor) -> Tensor:
        """Log of each next token's probabilities, float64 `[T − 1, V]`."""
        return torch.cat([self.logits(window)[:-1].double().log_softmax(-1) for window in self.windows(ids)])

    def continued(self, ids: Tensor, tokens: int) -> list[int]:
        """The likeliest tokens after `ids [1, T]`, each by a full pass."""
        for _ in range(tokens):
            ids = torch.cat([ids, self.logits(ids)[-1].argmax()[None, None]], 1)
        return ids[0, -tokens:].tolist()

    def moment(self, layer: str, ids: Tensor) -> Tensor:
        """E[x xᵀ] of what the module `layer` reads in one pass."""
        seen: list[Tensor] = []
        hook = self.modules[layer].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0].flatten(0, -2)))
        try:
            for window in ids.split(self.window, 1):
                self.logits(window)
        finally:
            hook.remove()
        x = torch.cat(seen).double()
        return (x.T @ x / len(x)).float()

    @cached_property
    def used(self) -> set[str]:
        """Modules that take part when text is read."""
        called: set[str] = set()
        hooks = [
            module.register_forward_pre_hook(lambda _module, _inputs, name=name: called.add(name))
            for name, module in self.modules.items()
        ]
        try:
            self.logits(torch.arange(3, 43)[None])
        finally:
            for hook in hooks:
                hook.remove()
        return called

    @cached_property
    def block_weights(self) -> dict[str, nn.Parameter]:
        """The matrices inside numbered blocks, stacks of them included; shared ones once."""
        return {name: parameter for name, parameter in self.module.named_parameters() if self._is_matrix(name, parameter)}

    def _is_matrix(self, name: str, parameter: nn.Parameter) -> bool:
        path, _, leaf = name.rpartition(".")
        owner = self.modules[path]
        if NO_LAYER.search(type(owner).__name__):
            return False
        if isinstance(owner, nn.Linear | Conv1D):
            return leaf == "weight" and IN_BLOCK.search(path) is not None  # a row of linear maps is no row of blocks
        if parameter.ndim < 2 or not IN_BLOCK.search(name):
            return False
        no_map = isinstance(owner, nn.Embedding | _ConvNd) or NO_MAP.search(type(owner).__name__)
        return not no_map and not NO_MATRIX.search(leaf)

    def slot(self, layer: str, weight: Tensor) -> Slot | None:
        """Where the weight `[out, in]` of a layer by the workbench's name lies, None where transformers has no such weight."""
        module = self.modules.get(layer)
        if module is not None and isinstance(getattr(module, "weight", None), nn.Parameter):
            return Slot(module.weight, None, isinstance(module, Conv1D))
        if layer in self.parameters:
            return turned(Slot(self.parameters[layer], None), weight)
        stack, _, index = layer.rpartition(".")
        if stack not in self.parameters or not index.isdecimal():
            return None
        parameter = self.parameters[stack]
        rows = weight.numel() // parameter.shape[1] if parameter.ndim == 2 else 1  # experts one below the other
        return turned(Slot(parameter, int(index), rows=rows), weight)

    @contextmanager
    def replaced(self, weights: Iterable[tuple[Slot, Tensor]], tensors: Mapping[str, Tensor] | None = None) -> Iterator[None]:
        """The module with weights `[out, in]` in their slots and other tensors under their names."""
        state = self.module.state_dict()
        before = {name: tensor.clone() for name, tensor in state.items()}
        try:
            for name, tensor in (tensors or {}).items():
                state[name].copy_(tensor)
            for slot, weight in weights:
                slot.read().copy_(weight)
            yield
        finally:
            for name, tensor in before.items():
                state[name].copy_(tensor)


def turned(slot: Slot, weight: Tensor) -> Slot:
    """The slot in the orientation in which it holds `weight`; by its values where it is square."""
    other = replace(slot, transposed=True)
    square = slot.read().shape == other.read().shape
    fits = torch.equal(slot.read(), weight.float()) if square else slot.read().shape == weight.shape
    return slot if fits else other
