"""Checkpoints of bitsandbytes: NF4 and FP4 codes with a scale a block, scales quantized once more or not, and 8-bit rows."""

from collections.abc import Mapping
from functools import partial
from typing import Any, TypeGuard

import torch
from torch import Tensor

from workbench.errors import ModelError
from workbench.exchange.reading.coded_tensor import CodedTensor, Source
from workbench.json_value import parse, shorten_value

STATE = "weight.quant_state.bitsandbytes__"
KINDS = ("nf4", "fp4")
ROW_RANGE = 127  # the code of a row's largest weight
MAX_SIZE = 1 << 31


def find_weights(source: Source) -> list[CodedTensor]:
    """The 4-bit and 8-bit weights of a checkpoint of bitsandbytes; ModelError where their facts do not fit."""
    states = {name: name.split(f".{STATE}")[0] for name in source.tensors if f".{STATE}" in name}
    coded = [_find_four_bits(source, owner, name) for name, owner in states.items()]
    for owner, parts in source.group("SCB").items():
        chosen = source.take(owner, parts, ("weight", "SCB"))
        rows, cols = source.tensors[chosen["weight"]].shape
        source.check_shape(chosen["SCB"], (rows,))
        if "weight_format" in parts and int(source.read(parts["weight_format"])):
            raise source.describe(f"stores {chosen['weight']!r} in the layout of a GPU, not row by row, which is not read")
        coded.append(CodedTensor(chosen["weight"], (rows, cols), "LLM.int8()", chosen, decode_rows))
    return coded


def _find_four_bits(source: Source, owner: str, state: str) -> CodedTensor:
    """One 4-bit weight, whose shape and block sizes stand in a JSON text that is stored as bytes."""
    kind = state.rpartition("__")[2]
    facts = _read_facts(source, state)
    shape, block = facts.get("shape"), facts.get("blocksize")
    if kind not in KINDS or not _is_shape(shape) or type(block) is not int or not 0 < block <= MAX_SIZE:
        raise source.describe(
            f"says {kind}, shape {shorten_value(shape)}, blocksize {shorten_value(block)} for {owner!r}; download it again"
        )
    prefix = f"{owner}.weight"
    chosen = {"codes": prefix, "absmax": f"{prefix}.absmax", "values": f"{prefix}.quant_map"}
    if f"{prefix}.nested_absmax" in source.tensors or facts.get("nested_blocksize"):
        chosen |= {"nested_absmax": f"{prefix}.nested_absmax", "nested_values": f"{prefix}.nested_quant_map"}
    source.take(owner, {name: name for name in source.tensors if name.startswith(f"{owner}.")}, chosen.values())
    rows, cols = shape
    count = -(-rows * cols // block)
    source.check_shape(chosen["absmax"], (count,))
    source.check_shape(chosen["values"], (16,))
    if "nested_values" in chosen:
        size = facts.get("nested_blocksize")
        if type(size) is not int or not 0 < size <= MAX_SIZE:
            raise source.describe(f"says nested_blocksize {shorten_value(size)} for {owner!r}; download it again")
        source.check_shape(chosen["nested_values"], (256,))
        source.check_shape(chosen["nested_absmax"], (-(-count // size),))
    if source.tensors[prefix].shape not in ((-(-rows * cols // 2), 1), (1, -(-rows * cols // 2))):
        raise source.describe(f"stores {prefix!r} as {list(source.tensors[prefix].shape)}, which is no {kind} of {shape}")
    size, offset = facts.get("nested_blocksize", 0), facts.get("nested_offset", 0.0)
    decode = partial(decode_blocks, shape=(rows, cols), block=block, nested_block=int(size or 0), offset=float(offset or 0))
    return CodedTensor(prefix, (rows, cols), kind.upper(), chosen | {"state": state}, decode)


def _read_facts(source: Source, state: str) -> dict[str, Any]:
    """The JSON text of a weight."""
    content = bytes(source.read(state).to(torch.uint8).tolist())
    value = parse(content, f"{source.where}: {state}", ModelError, foreign=True).value
    return value if isinstance(value, dict) else {}


def _is_shape(shape: Any) -> TypeGuard[list[int]]:
    return isinstance(shape, list) and len(shape) == 2 and all(type(size) is int and 0 < size < MAX_SIZE for size in shape)


def decode_blocks(parts: Mapping[str, Tensor], *, shape: tuple[int, int], block: int, nested_block: int, offset: float) -> Tensor:
    """The weight `shape` float32: value of the code · scale of its block.

    Args:
        parts: `codes` uint8, two a byte and the high one first; `absmax`, a scale a block in reading order; `values`, the 16
            numbers that codes stand for; where scales are quantized too `nested_absmax` and `nested_values`.
        shape: Rows and columns.
        block: Weights of a block.
        nested_block: Scales of a block of scales.
        offset: What is added to a quantized scale.

    Returns:
        The values.
    """
    content = parts["codes"].reshape(-1)
    codes = torch.stack([content >> 4, content & 15], -1).reshape(-1)[: shape[0] * shape[1]]
    absmax = parts["absmax"]
    if "nested_absmax" in parts:
        fine = parts["nested_values"].float()[absmax.long()]
        absmax = fine * parts["nested_absmax"].float().repeat_interleave(nested_block)[: len(fine)] + offset
    values = parts["values"].float()[codes.long()]
    return (values * absmax.float().repeat_interleave(block)[: len(values)]).view(shape)


def decode_rows(parts: Mapping[str, Tensor]) -> Tensor:
    """The weight `[rows, cols]` float32 of `weight` int8 and `SCB [rows]`, the largest weight of each row."""
    return parts["weight"].float() * (parts["SCB"].float() / ROW_RANGE)[:, None]
