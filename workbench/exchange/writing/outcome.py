"""What became of each tensor: how it is stored in the other format, exactly or not, and in how many bits."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.cell_display import CellSummary, ShownInCell

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Outcome:
    """One tensor: what it is, the type it is written in, and what is lost; `loss` is empty where every value is the same.

    `growth` says why a layer takes more bits than it could, empty where there is no more to say.
    `bits_before` and `bits_after` count all of its bits in the source and in the written file.
    """

    name: str
    kind: str
    weights: int
    stored_as: str
    bits_before: float
    bits_after: int
    loss: str = ""
    growth: str = ""


@dataclass(frozen=True)
class Export(ShownInCell):
    """A written file or folder.

    Args:
        path: Where it lies.
        format: The name of the format.
        outcomes: One for each tensor.
        notes: What is lost beside the tensors, in sentences.
        bytes: Of the file, or of the weight file of a folder.
        seconds: That writing took.
    """

    path: Path
    format: str
    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...]
    bytes: int
    seconds: float

    def __repr__(self) -> str:
        return f"<Export {str(self.path)!r}: {self.format}, {self.bytes:,} bytes, {self.bits_per_weight:.2f} bits per weight>"

    def cell_summary(self) -> CellSummary:
        """What was written, by kind."""
        rows = [list(map(str, row.values())) for row in self.rows()]
        answer = f"{self.bytes:,} bytes in {self.path}, {self.bits_per_weight:.2f} bits per weight; {self.describe_losses()}"
        headers = ("kind", "stored as", "tensors", "weights", "bits before", "bits after", "exact")
        return CellSummary.of_rows(f"What was written as {self.format}?", answer, headers, rows)

    @property
    def bits_per_weight(self) -> float:
        """Bits of the written file over all weights."""
        return 8 * self.bytes / max(sum(outcome.weights for outcome in self.outcomes), 1)

    @property
    def losses(self) -> dict[str, list[str]]:
        """The tensors that are not written exactly, by what is lost."""
        return group_losses(self.outcomes)

    @property
    def growths(self) -> list[str]:
        """Why layers take more bits than they could, one sentence a reason."""
        counts = Counter((outcome.stored_as, outcome.growth) for outcome in self.outcomes if outcome.growth)
        return [f"{count} layer{'' if count == 1 else 's'} as {form}: {why}" for (form, why), count in counts.items()]

    def describe_losses(self) -> str:
        """One sentence for each kind of loss; that there is none otherwise."""
        sentences = [
            f"{len(names)} {'tensors' if len(names) > 1 else 'tensor'} {loss} (first {names[0]})."
            for loss, names in self.losses.items()
        ]
        return " ".join(sentences) or "every tensor has the same values."

    def table(self) -> "pd.DataFrame":
        """One row a kind and type: kind, stored_as, tensors, weights, bits_before and bits_after per weight, exact."""
        import pandas as pd

        return pd.DataFrame(self.rows())

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        facts = {"path": str(self.path), "format": self.format, "bytes": self.bytes, "seconds": self.seconds}
        return {
            **facts,
            "bits_per_weight": self.bits_per_weight,
            "notes": list(self.notes),
            "tensors": [asdict(outcome) for outcome in self.outcomes],
        }

    def rows(self) -> list[dict[str, Any]]:
        """The rows of `table`."""
        groups: dict[tuple[str, str], list[Outcome]] = {}
        for outcome in self.outcomes:
            groups.setdefault((outcome.kind, outcome.stored_as), []).append(outcome)
        return [_summarise(kind, form, members) for (kind, form), members in groups.items()]


def _summarise(kind: str, form: str, members: Sequence[Outcome]) -> dict[str, Any]:
    """The row of some tensors of one kind and type."""
    weights = sum(member.weights for member in members)
    exact = sum(not member.loss for member in members)
    return {
        "kind": kind,
        "stored_as": form,
        "tensors": len(members),
        "weights": weights,
        "bits_before": sum(member.bits_before for member in members) / weights,
        "bits_after": sum(member.bits_after for member in members) / weights,
        "exact": "all" if exact == len(members) else f"{exact} of {len(members)}",
    }


def group_losses(outcomes: Sequence[Outcome]) -> dict[str, list[str]]:
    """The names of tensors that are not exact, by what is lost, the most frequent loss first."""
    counts = Counter(outcome.loss for outcome in outcomes if outcome.loss)
    return {loss: [outcome.name for outcome in outcomes if outcome.loss == loss] for loss, _ in counts.most_common()}
