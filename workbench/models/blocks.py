"""A model as a sequence of transformer blocks, each run on all windows of a text: one block's weights are in memory at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.memory import release_memory
from workbench.models import architecture
from workbench.models.block_pass import BlockPass, Call
from workbench.models.block_weights import BlockWeights, give_weights
from workbench.models.forward import build_cache_kwargs, translate_run_errors
from workbench.models.handle import ModelHandle
from workbench.models.layers import find_block_name
from workbench.models.streaming import keep_stored_types


class BlockRow:
    """The transformer blocks of an opened model, in order.

    `names` are the blocks' module names, `layers[i]` the names of the layers in block i, `routers[i]` those of its routers. The
    module behind it is this object's own: nothing that happens here is seen by others who use the model.
    """

    def __init__(self, model: ModelHandle) -> None:
        self.model = model
        self.layers: list[list[str]] = []
        self.names: list[str] = []
        for layer in model.layer_names:
            name = find_block_name(layer)
            if name not in self.names:
                self.names.append(name)
                self.layers.append([])
            self.layers[self.names.index(name)].append(layer)
        self.routers = [[name for name in model.router_names if name.startswith(f"{block}.")] for block in self.names]
        self._module = architecture.build_split_module(model.config)
        # one at a time: each tensor keeps the whole file mapped that it was read from
        self._dtypes: dict[str, torch.dtype] = {}
        tensors = self._read_outside()
        architecture.fill(self._module, keep_stored_types(self._module, tensors) if model.streams else tensors)

    def _read_outside(self) -> Iterator[tuple[str, Tensor]]:
        """What the module holds beside its layers, noting the types in which it is stored."""
        for name in self.model.other_names(self.model.layer_names):
            tensor = self.model.tensor(name)
            self._dtypes[name] = tensor.dtype
            yield name, tensor

    def start(self, windows: Iterable[Tensor], last: str | None = None) -> BlockPass:
        """A forward pass over windows of token ids `[1, T]`, halted before the first block, and before the output head `last`."""
        if last is not None:
            return BlockPass(self._module, self.names, list(windows), last)
        base: Any = getattr(self._module, "base_model", self._module)  # without the output head, of which a block run has no use
        prefix = next(path for path, part in self._module.named_modules() if part is base)
        return BlockPass(base, [name.removeprefix(f"{prefix}.") for name in self.names], list(windows))

    def visit(self, *passes: BlockPass) -> Iterator[int]:
        """The blocks' numbers in the order in which the text reaches them; whoever asks for the next one has advanced all passes.

        Raises ModelError where the text comes to a block twice: its layers cannot be quantized on the way.
        """
        reached: list[str] = []
        while (block := passes[0].block) is not None:
            if block in reached or any(other.block != block for other in passes):
                raise ModelError(
                    f"{self.model.source!r} runs its block {block!r} more than once for a text; "
                    f"quantize its layers one by one: give stats= instead of text=."
                )
            reached.append(block)
            yield next(number for number, name in enumerate(self.names) if name.endswith(block))

    def index(self, name: str) -> int:
        """A block's number by its name."""
        return self.names.index(name)

    def run_through(
        self, windows: Iterable[Tensor], last: str | None = None
    ) -> Iterator[tuple[dict[str, nn.Module], Callable[[int], None]]]:
        """Run a text through the model, block by block: its layers and routers by name, and `run(number)` for each window.

        All windows have to be run before the next block is asked for. The output head `last` comes behind the blocks.
        """
        text = self.start(windows, last)
        for index in self.visit(text):
            outputs: dict[int, Any] = {}
            with self.block(index) as block:
                calls = text.calls

                def run(number: int, block: nn.Module = block, calls: Sequence[Call] = calls) -> None:
                    outputs[number] = calls[number].outputs(block)  # noqa: B023  used before the next block

                names = [*self.layers[index], *self.routers[index]]
                yield {name: block.get_submodule(self.within(index, name)) for name in names}, run
                text.advance([outputs[number] for number in range(len(calls))])
        if last is not None:
            head, calls = self.module(last), text.calls
            yield {last: head}, lambda number: calls[number].outputs(head)
            text.leave(self.model.layer(last).rows)

    def compute_logits(
        self, ids: Tensor, weights: BlockWeights, outside: Mapping[str, Tensor], *, recompute: bool = False
    ) -> Tensor:
        """Next-token logits float32 `[T, V]` of `ids [1, T]`, with gradients in all weights that have them.

        `weights(i)` are block i's parameters by their names in it, asked for when the block runs; `outside` are parameters beside
        the blocks by the module's names. With `recompute` a block is run again for its gradients, so that only one block's
        activations are in memory.
        """
        blocks = [self._module.get_submodule(name) for name in self.names]
        kwargs = build_cache_kwargs(self._module, use_cache=False)
        with give_weights(blocks, weights, recompute=recompute), translate_run_errors(self.model.source):
            out = torch.func.functional_call(self._module, dict(outside), (ids,), kwargs)
        return out.logits[0].float()

    def read_weights(self, index: int) -> dict[str, Tensor]:
        """The original weights of block `index` by their names in it, float32, as the block holds them."""
        weights = {name: self.model.layer(name).orient(self.model.weight(name).float()) for name in self.layers[index]}
        return {f"{self.within(index, name)}.weight": weight for name, weight in weights.items()}

    def module(self, name: str) -> nn.Module:
        """A module of this row by its name."""
        return self._module.get_submodule(name)

    @contextmanager
    def block(self, index: int) -> Iterator[nn.Module]:
        """Block `index` with its weights read from the checkpoint, float32; they are let go on leaving."""
        try:
            for name in self.layers[index]:
                self.set_weight(name, self.model.weight(name))
            yield self._module.get_submodule(self.names[index])
        finally:
            for name in self.layers[index]:
                self.drop_weight(name)
            if self.model.streams:
                release_memory()

    def set_weight(self, name: str, weight: Tensor) -> None:
        """Give layer `name` the weight `[rows, cols]`."""
        oriented = self.model.layer(name).orient(weight.to(torch.float32))
        self._module.get_submodule(name).weight = nn.Parameter(oriented, requires_grad=False)

    def drop_weight(self, name: str) -> None:
        """Let go of the weight of layer `name`, until it is given another."""
        self.set_weight(name, torch.empty(self.model.layer(name).rows, self.model.layer(name).cols, device="meta"))

    def vectors(self, index: int) -> dict[str, Tensor]:
        """Gains of norms and biases of block `index` by their names in it, in the type in which the model stores them."""
        named = self._module.get_submodule(self.names[index]).named_parameters()
        return {name: p.detach().to(self._dtypes[f"{self.names[index]}.{name}"]) for name, p in named if p.ndim == 1}

    def outside_vectors(self) -> dict[str, Tensor]:
        """Gains of norms and biases beside the blocks by the module's names, in the type in which the model stores them."""
        inside = tuple(f"{name}." for name in self.names)
        named = {name: p for name, p in self._module.named_parameters() if p.ndim == 1 and not name.startswith(inside)}
        return {name: p.detach().to(self._dtypes[name]) for name, p in named.items() if name in self._dtypes}

    def put_tensor(self, name: str, tensor: Tensor) -> None:
        """Give the parameter `name` of a block other values."""
        architecture.replace_parameters(self._module, {name: tensor})

    def within(self, index: int, layer: str) -> str:
        """A layer's name inside its block."""
        return layer.removeprefix(f"{self.names[index]}.")
