"""A GGUF file: what each tensor becomes, then all of them one by one, by the gguf library."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.atomic import write_large_file
from workbench.errors import ArtifactError
from workbench.exchange.writing import gguf_blocks
from workbench.exchange.writing.gguf_metadata import (
    ROPE_FREQUENCIES,
    add_metadata,
    compute_rope_factors,
    find_architecture,
    get_head_size,
)
from workbench.exchange.writing.gguf_tokenizer import add_tokenizer
from workbench.exchange.writing.grid_codes import GridCodes, read_grid
from workbench.exchange.writing.model_folder import Report
from workbench.exchange.writing.outcome import Outcome
from workbench.exchange.writing.source import Source

PLAIN = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}
PERMUTED = ("self_attn.q_proj", "self_attn.k_proj")  # whose rows llama.cpp wants in another order, in architecture "llama"


@dataclass(frozen=True)
class PlannedBlocks:
    """A tensor of the file: its name there, type, shape and bytes, and what makes them when its turn has come."""

    outcome: Outcome
    name: str
    kind: str
    shape: tuple[int, ...]
    nbytes: int
    build: Callable[[], np.ndarray]


def check_library() -> None:
    """ArtifactError where the gguf library is not installed."""
    if find_spec("gguf") is None:
        raise ArtifactError("writing GGUF needs the gguf library; run: pip install 'quantization-workbench[exchange]'.")


def plan_file(source: Source, types: Collection[str] = gguf_blocks.NAMES) -> list[PlannedBlocks]:
    """What becomes of each tensor: blocks of `types` where they hold it exactly, else 16-bit or 32-bit numbers.

    ArtifactError for a family that GGUF is not written for, and for a tensor that it has no name for.
    """
    import gguf

    architecture = find_architecture(source)
    number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
    names = gguf.get_tensor_name_map(number, source.config.num_hidden_layers)
    plan = []
    for name in source.names:
        name_in_file = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if name_in_file is None:
            raise ArtifactError(f"GGUF has no name for the tensor {name!r} of {source.name!r}; export to hf instead.")
        rows = _arrange_rows(source, name) if architecture == "llama" else None
        plan.append(_plan_tensor(source, name, name_in_file, rows, types))
    if (factors := compute_rope_factors(source)) is not None:
        outcome = Outcome(ROPE_FREQUENCIES, "rope", factors.numel(), "F32", 0, 32 * factors.numel())
        plan.append(PlannedBlocks(outcome, ROPE_FREQUENCIES, "F32", tuple(factors.shape), factors.nbytes, factors.numpy))
    return plan


def _arrange_rows(source: Source, name: str) -> Tensor | None:
    """The order in which llama.cpp has the rows of q and k: it rotates neighbours where transformers rotates halves of a head."""
    if name.rpartition(".")[0].endswith(PERMUTED):
        config: Any = source.config
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        half = get_head_size(config) // 2
        return torch.arange(heads * 2 * half).view(heads, 2, half).mT.reshape(-1)
    return None


def _plan_tensor(source: Source, name: str, name_in_file: str, rows: Tensor | None, types: Collection[str]) -> PlannedBlocks:
    """What becomes of one tensor, its rows in the order `rows`."""
    layer = source.find_layer(name)
    if layer is None:
        return _plan_plain(source, name, name_in_file, rows)
    grid = read_grid(layer.packed)
    choice = grid if isinstance(grid, str) else gguf_blocks.choose_type(grid, types)
    if isinstance(grid, str) or isinstance(choice, str):
        return _plan_plain(source, name, name_in_file, rows, str(choice))
    kind, loss = choice
    if grid.input_bits:
        loss = "; ".join(filter(None, [loss, f"run without rounding of inputs to {grid.input_bits} bits"]))
    shape = (layer.packed.rows, layer.packed.cols)
    nbytes = math.prod(shape) // kind.block * kind.nbytes
    growth = gguf_blocks.explain_growth(grid, kind, types)
    outcome = _describe(source, name, shape, kind.name, nbytes, loss, growth)
    return PlannedBlocks(outcome, name_in_file, kind.name, shape, nbytes, _build_blocks(grid, kind, rows))


def _build_blocks(grid: GridCodes, kind: gguf_blocks.BlockType, rows: Tensor | None) -> Callable[[], np.ndarray]:
    return lambda: gguf_blocks.encode(grid, kind, rows)


def _plan_plain(source: Source, name: str, name_in_file: str, rows: Tensor | None, reason: str = "") -> PlannedBlocks:
    """A tensor as numbers: vectors in float32, matrices as stored, dequantized ones in bfloat16 for that `reason`."""
    tensor = source.tensor(name)
    kind = "F32" if tensor.ndim < 2 else _choose_plain(source, name, tensor)
    same = torch.equal(tensor.to(DTYPES[kind]).to(tensor.dtype), tensor)
    loss = "" if same else f"dequantized to {kind}, because {reason}" if reason else f"rounded to {kind}"
    nbytes = tensor.numel() * DTYPES[kind].itemsize

    def build() -> np.ndarray:
        values = source.tensor(name).to(DTYPES[kind])
        values = values if rows is None else values[rows]
        return values.contiguous().view(torch.uint8).numpy() if kind == "BF16" else values.contiguous().numpy()

    outcome = _describe(source, name, tensor.shape, kind, nbytes, loss, reason if same else "")
    return PlannedBlocks(outcome, name_in_file, kind, tuple(tensor.shape), nbytes, build)


def _choose_plain(source: Source, name: str, tensor: Tensor) -> str:
    """The type of a matrix of numbers: that in which it is stored, bfloat16 where it is decoded from something else."""
    layer = source.find_layer(name)
    if layer is None or layer.packed.format == "dense":
        return PLAIN.get((tensor if layer is None else layer.packed.tensors["weight"]).dtype, "F32")
    return "BF16"


def _describe(source: Source, name: str, shape: Sequence[int], kind: str, nbytes: int, loss: str, growth: str = "") -> Outcome:
    """What became of a tensor; of a layer that is plain numbers without a loss, why."""
    bits, part = source.count_bits(name), source.classify(name, shape)
    if source.layers and part == "layers" and kind in DTYPES and not loss:
        growth = growth or "not quantized in the source"
    return Outcome(name, part, math.prod(shape), kind, bits, 8 * nbytes, loss, growth)


def write_gguf(source: Source, path: Path, plan: Sequence[PlannedBlocks], report: Report) -> list[str]:
    """Write the planned tensors with all metadata, completely or not at all; returns what is lost beside them, in sentences."""
    import gguf

    weights: Counter[str] = Counter()
    for planned in plan:
        weights[planned.kind] += planned.outcome.weights
    with write_large_file(path) as partial:
        writer = gguf.GGUFWriter(partial, find_architecture(source))
        notes = add_metadata(writer, source, weights.most_common(1)[0][0])
        notes += add_tokenizer(writer, source.folder, source.config.vocab_size)
        for planned in plan:
            kind = gguf.GGMLQuantizationType[planned.kind]
            writer.add_tensor_info(planned.name, planned.shape, np.dtype(np.float32), planned.nbytes, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for data in _build_all(plan, report):
            writer.write_tensor_data(data)
        writer.close()
    return notes


def _build_all(plan: Sequence[PlannedBlocks], report: Report) -> Iterator[np.ndarray]:
    """The data of each tensor in turn."""
    total, done = sum(planned.nbytes for planned in plan), 0
    for planned in plan:
        yield planned.build()
        done += planned.nbytes
        report(done, total)
