"""Blocks that are given their weights when they run: one differentiable pass through a model larger than its activations."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

BlockWeights = Callable[[int], Mapping[str, Tensor]]  # a block's parameters by their names in it, for its number


class _Unchanged(nn.Module):
    """A block with the forward pass of its class, whatever stands in for that on the block itself."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return type(self.block).forward(self.block, *args, **kwargs)


@contextmanager
def give_weights(blocks: Sequence[nn.Module], weights: BlockWeights, *, recompute: bool) -> Iterator[None]:
    """Run `blocks[i]` on `weights(i)`; with `recompute` each is run again for its gradients instead of keeping activations."""
    for index, block in enumerate(blocks):
        block.forward = _build_forward(index, _Unchanged(block), weights, recompute=recompute)
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _build_forward(index: int, block: nn.Module, weights: BlockWeights, *, recompute: bool) -> Callable[..., Any]:
    """The forward pass of one block on the weights that it asks for."""

    def run(*args: Any, **kwargs: Any) -> Any:
        named = {f"block.{name}": weight for name, weight in weights(index).items()}
        return torch.func.functional_call(block, named, args, kwargs)

    def run_twice(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(run, *args, use_reentrant=False, **kwargs)

    return run_twice if recompute else run
