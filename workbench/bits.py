"""The bit ledger: every stored item of a layer or model, its bits, and why it is stored."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from workbench.cell_display import CellSummary, ShownInCell
from workbench.errors import ArtifactError
from workbench.json_value import JsonValue, wrap_value

if TYPE_CHECKING:
    import pandas as pd


FIGURES = 12  # decimals of nominal bits: a mean of 0.8 and 0.8 is 0.8, and no true difference is lost


@dataclass(frozen=True)
class BitEntry:
    """One stored item.

    `bits` is what the item takes in the file (bytes × 8, padding included). An item shared by several layers appears in
    each layer's ledger with its part of the cost; `shared_by` says among how many.
    """

    item: str
    bits: float
    why: str
    shared_by: int = 1

    @classmethod
    def read(cls, value: JsonValue) -> "BitEntry":
        """One entry of a ledger that was written."""
        shared = value.find("shared_by")
        words = value.get("item").as_text(), value.get("bits").as_number(0), value.get("why").as_text()
        return cls(*words, 1 if shared is None else shared.as_whole(1))


@dataclass(frozen=True)
class BitLedger(ShownInCell):
    """What storing `weights` weights really costs, item by item, beside the nominal figure of the method's paper."""

    entries: tuple[BitEntry, ...]
    weights: int
    nominal_bits: float

    def __repr__(self) -> str:
        size = f"{len(self.entries)} stored items for {self.weights:,} weights"
        return f"<BitLedger: {size}, {self.bits_per_weight:.2f} bits per weight ({self.nominal_bits:.2f} nominal)>"

    def cell_summary(self) -> CellSummary:
        """The largest items, with what each is for."""
        answer = (
            f"{self.bits_per_weight:.2f} stored bits per weight ({self.nominal_bits:.2f} nominal): "
            f"{len(self.entries)} items for {self.weights:,} weights."
        )
        largest = sorted(self.entries, key=lambda entry: -entry.bits)
        rows = [(e.item, f"{e.bits / self.weights:.3f}", f"{e.bits / (self.total_bits or 1):.1%}", e.why) for e in largest]
        return CellSummary.of_rows("Where does every bit go?", answer, ("item", "bits per weight", "share", "why"), rows)

    @property
    def total_bits(self) -> float:
        """Sum of all items, in bits."""
        return sum(entry.bits for entry in self.entries)

    @property
    def bits_per_weight(self) -> float:
        """Stored bits per weight: all items over the weights they describe."""
        return self.total_bits / self.weights

    def table(self) -> "pd.DataFrame":
        """One row an item: item, bits, bits_per_weight, share (of the total), shared_by, why."""
        import pandas as pd

        rows = [
            {
                "item": e.item,
                "bits": e.bits,
                "bits_per_weight": e.bits / self.weights,
                "share": e.bits / self.total_bits if self.total_bits else 0.0,
                "shared_by": e.shared_by,
                "why": e.why,
            }
            for e in self.entries
        ]
        return pd.DataFrame(rows, columns=["item", "bits", "bits_per_weight", "share", "shared_by", "why"])

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, both figures included."""
        return {
            "bits_per_weight": self.bits_per_weight,
            "nominal_bits": self.nominal_bits,
            "weights": self.weights,
            "entries": [asdict(e) for e in self.entries],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any] | JsonValue) -> "BitLedger":
        """The inverse of `to_dict`; ArtifactError for a field that is missing or of another type."""
        value = wrap_value(data, "the ledger", ArtifactError)
        entries = tuple(BitEntry.read(entry) for entry in value.get("entries").elements())
        return cls(entries, value.get("weights").as_whole(1), value.get("nominal_bits").as_number(0))

    @classmethod
    def merge(cls, ledgers: Iterable["BitLedger"]) -> "BitLedger":
        """The ledger of several layers together: equal items added up, nominal bits averaged over weights."""
        ledgers = list(ledgers)
        weights = sum(ledger.weights for ledger in ledgers)
        bits: dict[str, float] = {}
        first: dict[str, BitEntry] = {}
        for entry in (e for ledger in ledgers for e in ledger.entries):
            bits[entry.item] = bits.get(entry.item, 0.0) + entry.bits
            first.setdefault(entry.item, entry)
        entries = tuple(BitEntry(item, total, first[item].why) for item, total in bits.items())
        nominal = math.fsum(ledger.nominal_bits * ledger.weights for ledger in ledgers) / weights if weights else 0.0
        return cls(entries, weights, round(nominal, FIGURES))
