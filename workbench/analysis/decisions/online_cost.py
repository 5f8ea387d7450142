"""The cost of input transforms: those that run online for every token, those folded into weights, and their stored bits."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from workbench import registry
from workbench.kernels.formats.transforms import Transformed
from workbench.kernels.packing.packed import Packed, build_ledger
from workbench.quantized import QuantizedModel

if TYPE_CHECKING:
    import pandas as pd

FOLDED, ONLINE = "folded", "online"


def tabulate_online_cost(quantized: QuantizedModel) -> "pd.DataFrame":
    """One row for each change of a layer's input: name, transform, where (folded or online), multiply_adds (a token),
    online_share (of the layer's own multiply-adds, rows × cols) and transform_bits (stored, a weight).

    Layers that read one input each change it for themselves, as they run here; what they share in storage is paid for together.
    """
    import pandas as pd

    rows = []
    for name, layer in quantized.layers.items():
        weights = layer.packed.rows * layer.packed.cols
        if quantized.fused and name.rpartition(".")[2] not in quantized.fused["online"]:
            rows.append((name, "fused rotation", FOLDED, 0, 0.0, 0.0))
        for node in _iterate_transforms(layer.packed):
            cost = registry.find("format", node.format).multiply_adds(node)
            bits = sum(entry.bits for entry in build_ledger(_drop_children(node), 0.0).entries)
            rows.append((name, node.format, ONLINE, cost, cost / weights, bits / weights))
    columns = ["name", "transform", "where", "multiply_adds", "online_share", "transform_bits"]
    return pd.DataFrame(rows, columns=columns)


def _iterate_transforms(packed: Packed) -> Iterator[Packed]:
    """The nodes that change the input, from the outside in."""
    node = packed
    while issubclass(registry.find("format", node.format), Transformed):
        yield node
        node = node.children[0]


def _drop_children(node: Packed) -> Packed:
    """A node without what it holds."""
    return Packed(node.format, node.rows, node.cols, node.tensors, node.facts, shared=node.shared)
