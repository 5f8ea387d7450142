"""The group of each weight in a layer: pruned, by magnitude, in a salient column, or coded by another coder.

Read from the stored form alone: maps of a split say it outright; in a sum of sign planes it is in the planes, since two
magnitudes with a map are two planes (a weight belongs to the larger magnitude where both planes have one sign).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.analysis.method.coded_basis import extract_coded_basis
from workbench.kernels.formats.codebook import decode_signs
from workbench.kernels.formats.composite import unpack_owners
from workbench.kernels.formats.format import unpack_codes
from workbench.kernels.packing.packed import Packed, count_stored_bits

SALIENT_COLUMNS = "salient columns"


@dataclass(frozen=True)
class GroupMap:
    """`groups` uint8 `[rows, cols]`: the number of each weight's group, in the order of `table`.

    `table` has a row a group: group (its name), count, share, magnitude (mean |w| in the coded basis). `map_bits` is what knowing
    the groups costs a weight.
    """

    groups: np.ndarray
    table: pd.DataFrame
    map_bits: float


def build_group_map(packed: Packed, weight: Tensor) -> GroupMap | None:
    """The groups of a stored layer with original `weight [rows, cols]`; None where all weights are coded alike."""
    node, target, _ = extract_coded_basis(packed, weight)
    if node.format == "sum" and any(child.format == "low-rank" for child in node.children):
        node = node.children[0]
    masks = dict(_iterate_group_masks(node, torch.ones(node.rows, node.cols, dtype=torch.bool)))
    if len(masks) < 2:
        masks = _make_magnitude_masks(node, target)
    if len(masks) < 2:
        return None
    numbers, size, rows = np.zeros((node.rows, node.cols), dtype=np.uint8), target.abs(), []
    for number, (name, mask) in enumerate(masks.items()):
        numbers[mask.numpy()] = number
        count = int(mask.sum())
        rows.append((name, count, count / mask.numel(), float(size[mask].mean()) if count else float("nan")))
    table = pd.DataFrame(rows, columns=["group", "count", "share", "magnitude"])
    return GroupMap(numbers, table, _count_map_bits(node) / mask.numel())


def _iterate_group_masks(node: Packed, mask: Tensor, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """The groups that maps of a split make inside `mask [rows, cols]`, smallest magnitudes first, by name."""
    if node.format != "masked":
        yield name or LEAVES.get(node.format, node.format), mask
        return
    kind = node.facts["map"]
    owner = unpack_owners(node, mask)
    alike = kind == "bitmap" and {child.format for child in node.children} == {"planes"}
    for number, child in enumerate(node.children):
        label = f"magnitude {number + 1} of {len(node.children)}" if alike else LEAVES.get(child.format, "")
        if kind == "columns":
            label = SALIENT_COLUMNS if number else "other columns" if child.format != "masked" else ""
        if kind == "groups":
            label = "widest groups" if number else "other groups"
        yield from _iterate_group_masks(child, mask & (owner == number), ", ".join(filter(None, (name, label))))


LEAVES = {"zero": "pruned", "planes": "signs", "uniform": "on a grid", "dense": "kept", "binary-codebook": "codewords"}


def _make_magnitude_masks(node: Packed, target: Tensor) -> dict[str, Tensor]:
    """The magnitudes that a sum of sign planes gives its weights, as masks by name; empty where it is none or has one plane."""
    planes = _decode_sign_planes(node)
    if len(planes) < 2:
        return {}
    number = torch.stack([(plane == planes[0]).int() << bit for bit, plane in enumerate(planes[1:])]).sum(0)
    masks = [number == pattern for pattern in range(1 << (len(planes) - 1))]
    masks.sort(key=lambda mask: float(target[mask].abs().mean().nan_to_num()))
    return {f"magnitude {i + 1} of {len(masks)}": mask for i, mask in enumerate(masks)}


def _decode_sign_planes(node: Packed) -> list[Tensor]:
    """The planes of a node or a sum of nodes, ±1 `[rows, cols]` each; none where something else is among them."""
    if node.format == "binary-codebook":
        return [decode_signs(node)]
    if node.format == "planes":
        return list(unpack_codes(node, "signs", 1, None, node.facts["planes"]) * 2 - 1)
    parts = [_decode_sign_planes(child) for child in node.children] if node.format == "sum" else []
    return [plane for part in parts for plane in part] if all(parts) else []


def _count_map_bits(node: Packed) -> int:
    """Bits that say which group each weight is in: the maps, or the planes beside the first."""
    maps = [part.tensors["map"] for _, part in node.walk() if "map" in part.tensors]
    if maps:
        return sum(count_stored_bits(tensor) for tensor in maps)
    planes = [part.tensors[name] for _, part in node.walk() for name in ("index", "signs") if name in part.tensors]
    if len(planes) == 1:  # all planes in one stream
        return count_stored_bits(planes[0]) * (node.facts["planes"] - 1) // node.facts["planes"]
    return sum(count_stored_bits(tensor) for tensor in planes[1:])
