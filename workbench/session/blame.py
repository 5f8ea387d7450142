"""Which layers are to blame for the first token that differs? Found once for a run and a prompt, then shown on the layer map."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.analysis.predictions.fork import ForkFinder, Guilt
from workbench.models import ModelHandle
from workbench.quantized import QuantizedModel

if TYPE_CHECKING:
    import pandas as pd

    from workbench.session.session import Session

BLAME = "fork_blame"  # the column of the layer table


@dataclass(frozen=True)
class Blame:
    """The fork with the table of all layers and the guilty ones; neither where both models write the same."""

    finder: ForkFinder
    table: "pd.DataFrame | None" = None
    guilt: Guilt | None = None


def find_blame_steps(model: ModelHandle, quantized: QuantizedModel, prompt: str, tokens: int) -> Generator[Any, None, Blame]:
    """Read the original's continuation of `prompt` with both models, find the fork and restore layers until it is gone."""
    finder = ForkFinder(model, quantized, prompt, tokens)
    yield None
    if finder.fork is None:
        return Blame(finder)
    table = finder.blame()
    yield None
    return Blame(finder, table, (yield from finder.guilty_steps()))


def mark_guilty(session: "Session", blame: Blame) -> None:
    """Mark the guilty layers, and colour the map by what restoring each layer wins back."""
    if blame.table is None or blame.guilt is None:
        drop_blame(session)
        return
    session.measured[BLAME] = dict(zip(blame.table["name"], blame.table["lead_gain"], strict=True))
    session.mark(layers=[name for name in session.model.layer_names if name in blame.guilt.layers])


def drop_blame(session: "Session") -> None:
    """Take back what holds for another run or prompt."""
    if session.measured.pop(BLAME, None) is not None:
        session.mark(layers=())
