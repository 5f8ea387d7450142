"""Running a model that is larger than memory: a block's weights are read before its forward pass and freed after it.

Embeddings and output heads stay in memory in the type in which they are stored; what they compute is float32 all the same.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn

from workbench.errors import ModelError
from workbench.kernels.matmul.half_precision import find_product
from workbench.memory import release_memory

STREAM_BYTES = 1 << 30  # models with more bytes of weights are streamed
FILLED = "_filled_for_this_pass"
HEAD_ROWS = 4096  # rows of an output head that are float32 at a time
FEW_INPUTS = 4  # that read a head of 16-bit numbers faster as it is than as float32

Read = Callable[[str], Tensor]


def needs_streaming(stored_bytes: int) -> bool:
    """Whether a model of so many stored bytes is streamed: from 1 GiB on, or as WORKBENCH_STREAM says (`always`, `never`)."""
    setting = os.environ.get("WORKBENCH_STREAM", "auto")
    if setting not in ("auto", "always", "never"):
        raise ModelError(
            f"WORKBENCH_STREAM is {setting!r}; use always, never, or auto (models of more than {STREAM_BYTES:,} bytes)."
        )
    return setting == "always" or (setting == "auto" and stored_bytes > STREAM_BYTES)


def stream_blocks(module: nn.Module, blocks: Sequence[str], read: Read) -> None:
    """Have the empty parameters of each block filled by `read(name)` whenever the block runs, and emptied again after it."""
    for name in blocks:
        block = module.get_submodule(name)
        block.register_forward_pre_hook(_build_block_filler(name, read))
        block.register_forward_hook(_empty_block, always_call=True)


def _build_block_filler(name: str, read: Read) -> Callable[[nn.Module, Any], None]:
    def fill_block(block: nn.Module, _inputs: Any) -> None:
        if "forward" in vars(block):
            return  # something stands in for the block, which needs no weights
        filled = vars(block).setdefault(FILLED, [])  # with the block, so that a copy of the model has a list of its own
        for path, parameter in list(block.named_parameters()):
            if parameter.is_meta:
                owner_path, _, leaf = path.rpartition(".")
                owner = block.get_submodule(owner_path)
                setattr(owner, leaf, nn.Parameter(read(f"{name}.{path}").to(parameter.dtype), requires_grad=False))
                filled.append((owner, leaf))

    return fill_block


def _empty_block(block: nn.Module, _inputs: Any, _output: Any) -> None:
    filled = vars(block).get(FILLED, [])
    while filled:
        owner, leaf = filled.pop()
        parameter = owner.get_parameter(leaf)
        setattr(owner, leaf, nn.Parameter(torch.empty_like(parameter, device="meta"), requires_grad=False))
    release_memory()


def keep_stored_types(module: nn.Module, tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    """Put embeddings and output heads into `module` in their stored, narrow types; the caller puts in those that are yielded."""
    embedding, head = cast(Any, module).get_input_embeddings(), cast(Any, module).get_output_embeddings()
    paths = {id(part): path for path, part in module.named_modules()}
    weights = {f"{paths[id(part)]}.weight": part for part in (embedding, head) if _can_stay_narrow(part)}
    for name, tensor in tensors:
        part = weights.get(name)
        if part is None or tensor.dtype not in (torch.bfloat16, torch.float16):
            yield name, tensor
        else:
            part.weight = nn.Parameter(tensor, requires_grad=False)
    for part in weights.values():  # a head that is tied gets the embedding's own tensor later
        part.__class__ = cast(Any, _build_narrow_class)(type(part))


def _can_stay_narrow(part: Any) -> bool:
    return (isinstance(part, nn.Embedding) and "weight" in part._parameters) or type(part) is nn.Linear


@cache
def _build_narrow_class(kind: type[nn.Module]) -> type:
    """`kind` with a weight of another type than its outputs."""
    mixin = NarrowEmbedding if issubclass(kind, nn.Embedding) else NarrowHead
    return type(f"Narrow{kind.__name__}", (mixin, kind), {})


class NarrowEmbedding:
    """An embedding whose looked-up rows become float32 before anything is computed with them."""

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of `ids [1, T]` as the embedding's own class makes them of float32 weights."""
        weight: Tensor = cast(Any, self).weight
        if weight.dtype == torch.float32:
            return super().forward(ids)  # type: ignore[misc]
        rows, positions = torch.unique(ids, return_inverse=True)
        look_up = super().forward  # type: ignore[misc]
        padding, cast(Any, self).padding_idx = cast(Any, self).padding_idx, None  # it only concerns gradients
        cast(Any, self).weight = nn.Parameter(weight[rows].float(), requires_grad=False)
        try:
            return look_up(positions)
        finally:
            cast(Any, self).weight, cast(Any, self).padding_idx = weight, padding


class NarrowHead:
    """An output head of 16-bit numbers: for few inputs a compiled loop widens them, for many they become float32 some rows at a
    time."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[..., rows]` of hidden states `[..., cols]`."""
        weight, bias = cast(Any, self).weight, cast(Any, self).bias
        if weight.dtype == torch.float32:
            return super().forward(x)  # type: ignore[misc]
        compiled = x.numel() <= FEW_INPUTS * x.shape[-1] and not x.requires_grad  # the loop has no gradient
        if compiled and (product := find_product(weight)) is not None:
            logits = product(x.reshape(-1, x.shape[-1]).float().contiguous()).view(*x.shape[:-1], -1)
            return logits if bias is None else logits + bias.float()
        out = x.new_empty(*x.shape[:-1], len(weight))
        for start in range(0, len(weight), HEAD_ROWS):
            part = slice(start, start + HEAD_ROWS)
            out[..., part] = nn.functional.linear(x, weight[part].float(), None if bias is None else bias[part].float())
        return out
