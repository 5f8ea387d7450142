"""A stored matrix: a format name, tensors and the facts needed to decode them, possibly as a tree.

A tree describes a whole layer from the outside in, for example

    hadamard (seed)                    the online transform of the input
    └── sum
        ├── masked (bitmap)            which coder owns which weight
        │   ├── uniform                8-bit codes of the salient weights
        │   └── planes                 one sign and a row scale for the rest
        └── low-rank                   a correction

Every format registers under the kind "format" with `decode` and `linear` (see `kernels/formats`) and `items`, which says
why each of its tensors is stored. The ledger below counts exactly the bytes of these tensors.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from workbench import registry
from workbench.bits import BitEntry, BitLedger


@dataclass(frozen=True)
class Packed:
    """One stored matrix `[rows, cols]`.

    `tensors` are stored as they are; `facts` are JSON values; `shared` maps the name of a tensor that several layers have in
    common to `(key, layers)`: it is stored once under `key` and paid for by `layers` layers together.
    """

    format: str
    rows: int
    cols: int
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    children: tuple["Packed", ...] = ()
    shared: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    def __repr__(self) -> str:
        formats = " of ".join(dict.fromkeys(node.format for _, node in self.walk()))
        tensors = sum(len(node.tensors) for _, node in self.walk())
        return f"<Packed {self.rows} × {self.cols}: {formats}, {tensors} tensors>"

    def walk(self, path: str = "") -> Iterator[tuple[str, "Packed"]]:
        """Every node with its path: "" for the root, "0." for its first child, "0.1." below that."""
        yield path, self
        for index, child in enumerate(self.children):
            yield from child.walk(f"{path}{index}.")

    def share(self, scope: str, layers: int, path: str = "") -> "Packed":
        """A copy whose shared tensors are keyed `scope/path/tensor` and paid for by `layers` layers."""
        shared = {name: (f"{scope}/{path}{name}", layers) for name in self.shared}
        children = tuple(child.share(scope, layers, f"{path}{i}.") for i, child in enumerate(self.children))
        return replace(self, shared=shared, children=children)


def count_stored_bits(tensor: Tensor) -> int:
    """Bits a tensor takes in the file."""
    return tensor.numel() * tensor.element_size() * 8


def build_ledger(packed: Packed, nominal_bits: float) -> BitLedger:
    """Every stored tensor of a tree with its bits and reason; a shared tensor counts with its part."""
    entries = []
    for path, node in packed.walk():
        why = registry.find("format", node.format).items
        for name, tensor in node.tensors.items():
            layers = node.shared[name][1] if name in node.shared else 1
            entries.append(BitEntry(f"{path}{node.format} {name}", count_stored_bits(tensor) / layers, why[name], layers))
    return BitLedger(tuple(entries), packed.rows * packed.cols, nominal_bits)
