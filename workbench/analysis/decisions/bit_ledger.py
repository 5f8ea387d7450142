"""The bit ledger explained: from nominal to stored bits item by item, as a tree, and compared with a file on disk."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pandas as pd
from safetensors.torch import save_file

from workbench.artifact import digest
from workbench.artifact.folder_layout import LEDGER, MODEL, find_model_file, make_tensor_key
from workbench.artifact.reading import read_document
from workbench.bits import BitLedger
from workbench.models.layers import split_name
from workbench.quantized import QuantizedLayer

# what papers count: the codes themselves. All other items are stored beside them
NOMINAL_ITEMS = {
    "uniform codes",
    "binary-codebook index",
    "vector-codebook index",
    "planes signs",
    "parity-signs signs",
    "trellis path",
    "binary-factors left",
    "binary-factors right",
    "dense weight",
}


def strip_item_path(item: str) -> str:
    """An item without its place in the tree: `0.1.uniform codes` is `uniform codes`."""
    return item.lstrip("0123456789.")


def _select_nominal_codes(kinds: Mapping[str, float], nominal: float) -> set[str]:
    """Which kinds of codes the nominal figure is about: those whose bits a weight come nearest to it together."""
    codes = [kind for kind in kinds if kind in NOMINAL_ITEMS]
    choices = (set(some) for size in range(len(codes), -1, -1) for some in combinations(codes, size))
    return min(choices, key=lambda some: round(abs(sum(kinds[kind] for kind in some) - nominal), 6), default=set())


def tabulate_overhead(ledger: BitLedger) -> pd.DataFrame:
    """From nominal to stored bits, in bits per weight: item, bits_per_weight, why; the last row is the sum of all others.

    The item "codes beyond nominal" is what the codes that the nominal figure counts take over it: a padded last vector or byte,
    or groups of weights that hold more than their nominal share. Below zero, the figure counts more than these codes.
    """
    kinds: dict[str, float] = {}
    for entry in ledger.entries:
        kinds[strip_item_path(entry.item)] = kinds.get(strip_item_path(entry.item), 0.0) + entry.bits / ledger.weights
    why = {strip_item_path(entry.item): entry.why for entry in ledger.entries}
    inside = _select_nominal_codes(kinds, ledger.nominal_bits)
    beyond = sum(kinds[kind] for kind in inside) - ledger.nominal_bits
    rows = [("nominal", ledger.nominal_bits, f"as the method's paper counts: {' and '.join(sorted(inside)) or 'codes only'}")]
    if abs(beyond) > 1e-9:
        rows.append(("codes beyond nominal", beyond, "the same codes as they are stored, less the nominal figure"))
    beside = sorted(((kind, bits) for kind, bits in kinds.items() if kind not in inside), key=lambda part: -part[1])
    rows += [(kind, bits, why[kind]) for kind, bits in beside]
    rows.append(("stored", ledger.bits_per_weight, "all that is in the file, over the weights"))
    return pd.DataFrame(rows, columns=["item", "bits_per_weight", "why"])


def tabulate_ledger_tree(layers: Mapping[str, BitLedger]) -> pd.DataFrame:
    """Every stored item of some layers as a tree: id, parent, label, bits, share; parents before children, the root first.

    Of one layer: layer, items. Of several: model, blocks, layers, items.
    """
    total = sum(ledger.total_bits for ledger in layers.values())
    rows: dict[str, tuple[str, str, float]] = {"": ("", "all layers" if len(layers) > 1 else next(iter(layers)), total)}

    def add(location: str, parent: str, label: str, bits: float) -> None:
        before = rows[location][2] if location in rows else 0.0
        rows[location] = (parent, label, before + bits)

    for name, ledger in layers.items():
        owner = ""
        if len(layers) > 1:
            where = split_name(name)
            block = "outside" if where is None else f"block {where[0]}"
            add(block, "", block, ledger.total_bits)
            add(name, block, name if where is None else where[1].rsplit(".", 1)[-1], ledger.total_bits)
            owner = name
        for entry in ledger.entries:
            add(f"{owner}|{strip_item_path(entry.item)}", owner, strip_item_path(entry.item), entry.bits)
    table = pd.DataFrame([(location, *row) for location, row in rows.items()], columns=["id", "parent", "label", "bits"])
    return table.assign(share=table["bits"] / (total or 1.0))


@dataclass(frozen=True)
class OnDisk:
    """What a file holds: `ledger` is what the ledger adds up to and `file` what was counted there, in bytes."""

    ledger: float
    file: int
    what: str

    @property
    def agree(self) -> bool:
        """Whether both are the same number of bytes."""
        return self.ledger == self.file


def measure_saved_file(folder: str | Path) -> OnDisk:
    """The ledger that was saved with a model, against the size of its file, header and all that was not quantized included."""
    folder = Path(folder)
    book = BitLedger.from_dict(read_document(folder / LEDGER).get("model"))
    file = find_model_file(folder)
    return OnDisk(book.total_bits / 8, file.stat().st_size, f"the file {file.name}")


def measure_layer_file(layer: QuantizedLayer) -> OnDisk:
    """Write one layer's tensors to a file of their own, and count its bytes without the header.

    Items that other layers share count whole in the file, so they do here.
    """
    tensors, bits = {}, 0.0
    items = iter(layer.ledger.entries)
    for path, node in layer.packed.walk():
        for name, tensor in node.tensors.items():
            entry, location = next(items), make_tensor_key(layer.name, path, node, name)
            if location not in tensors:
                bits += entry.bits * entry.shared_by
                tensors[location] = tensor.detach().cpu().contiguous().clone()
    with tempfile.TemporaryDirectory(prefix="workbench-") as folder:
        file = Path(folder) / MODEL
        save_file(tensors, file)
        size = file.stat().st_size - len(digest.read_header(file))
    return OnDisk(bits / 8, size, "a file of this layer, without its header,")
