"""Decoding single rows of a stored matrix, for embedding lookups."""

from dataclasses import replace

import torch
from torch import Tensor

from workbench.kernels.formats.codebook import compute_index_width
from workbench.kernels.formats.format import find
from workbench.kernels.formats.transforms import Transformed
from workbench.kernels.packing import bitpack, tritpack
from workbench.kernels.packing.packed import Packed

# tensors of each format with something for every row, by the dimension that counts rows; bit streams are in `_list_row_streams`
DENSE = {
    "dense": {"weight": 0},
    "uniform": {"scale": 0},
    "planes": {"scale": 1, "mean": 0},
    "binary-codebook": {"scale": 0, "mean": 0},
    "vector-codebook": {"scale": 0},
    "ternary": {"scale": 1},
    "binary-factors": {"row": 0},
    "low-rank": {"left": 0},
    "offset": {"offset": 0},
    "sum": {},
    "zero": {},
}


def take_rows(packed: Packed, rows: Tensor) -> Packed | None:
    """The stored form of these `rows [n]` alone, in their order; None where rows of the format cannot be told apart."""
    children = [take_rows(child, rows) for child in packed.children]
    decodable = packed.format in DENSE or issubclass(find(packed), Transformed)
    if not decodable or any(child is None for child in children):
        return None
    tensors = dict(packed.tensors)
    for name, dimension in DENSE.get(packed.format, {}).items():
        if name in tensors:
            tensors[name] = tensors[name].index_select(dimension, rows)
    for name, (width, planes, codes) in _list_row_streams(packed).items():
        tensors[name] = _take_stream(tensors[name], _compute_positions(rows, packed.rows, planes, codes), width)
    return replace(packed, rows=len(rows), tensors=tensors, children=tuple(child for child in children if child is not None))


def _list_row_streams(packed: Packed) -> dict[str, tuple[int, int, int]]:
    """The streams of codes by row: bits of a code (0: trits), planes, and codes of a row in a plane."""
    facts, cols = packed.facts, packed.cols
    if packed.format == "uniform":
        zero = {"zero": (facts["bits"], 1, packed.tensors["scale"].shape[-1])} if "zero" in packed.tensors else {}
        return {"codes": (facts["bits"], 1, cols), **zero}
    if packed.format == "planes":
        return {"signs": (1, facts["planes"], cols)}
    if packed.format == "ternary":
        return {"trits": (0, facts["planes"], cols)}
    if packed.format in ("binary-codebook", "vector-codebook"):
        return {"index": (compute_index_width(facts["entries"]), 1, -(-cols // facts["length"]))}
    return {"left": (1, 1, facts["rank"])} if packed.format == "binary-factors" else {}


def _compute_positions(rows: Tensor, count: int, planes: int, codes: int) -> Tensor:
    """Where the codes of `rows` lie in a stream `[planes, count, codes]`, in the order of a stream `[planes, n, codes]`."""
    starts = (torch.arange(planes, device=rows.device)[:, None] * count + rows) * codes
    return (starts[..., None] + torch.arange(codes, device=rows.device)).flatten()


def _take_stream(stream: Tensor, positions: Tensor, width: int) -> Tensor:
    """A stream of the codes at `positions` of another one."""
    if not width:
        places = tritpack.MEANING.to(stream.device)[stream[positions // tritpack.TRITS].long()]
        return tritpack.pack(places.gather(1, (positions % tritpack.TRITS)[:, None]).flatten())
    return bitpack.pack(bitpack.take(stream, width, positions), width)
