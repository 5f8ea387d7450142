"""The trace of a run: the steps of a learned transform and the sweeps of coders, as plain tables."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pandas as pd

from workbench.quantizers.coding_trace import CodingTrace
from workbench.quantizers.contract import Snapshot, Sweeps
from workbench.quantizers.learning.descent import LearningStep


@dataclass
class Trace:
    """Everything small that the run of one layer (or of one block's transform) has reported so far, oldest first.

    Args:
        learning: Steps of a learned transform.
        sweeps: How each fit of a coder settled.
        coding_trace: The latest picture of the columns that are coded.

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.self_attn.k_proj"
        >>> trace = wb.measures.Trace()
        >>> result = wb.quantize(model, layer, wb.recipe("binary"), on_progress=trace.see)
        >>> len(trace.sweeps), len(trace.learning)
        (1, 0)
    """

    learning: list[LearningStep] = field(default_factory=list)
    sweeps: list[Sweeps] = field(default_factory=list)
    coding_trace: CodingTrace | None = None

    def see(self, snapshot: Snapshot) -> None:
        """Keep what `snapshot` tells; the memory of a learning step is left out, it holds whole rotations."""
        if "step" in snapshot.detail:
            self.learning.append(replace(snapshot.detail["step"], memory=None))
        self.coding_trace = snapshot.detail.get("coding_trace", self.coding_trace)
        self.sweeps += snapshot.detail.get("sweeps", [])

    @property
    def settled(self) -> list[Sweeps]:
        """The fits that took at least one sweep."""
        return [sweeps for sweeps in self.sweeps if len(sweeps.errors) > 1]


def tabulate_sweep_errors(sweeps: Sequence[Sweeps]) -> pd.DataFrame:
    """Tabulate how the squared error of each coder fell from sweep to sweep.

    Args:
        sweeps: The fits of a run, `Trace.sweeps`.

    Returns:
        One row a coder and sweep: coder (its number in the recipe), sweep (0 is the closed-form start), error (sum over its fits;
        one that has stopped keeps its last), running (how many fits took this sweep), share (the error over that of the start).

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.self_attn.k_proj"
        >>> trace = wb.measures.Trace()
        >>> result = wb.quantize(model, layer, wb.recipe("binary", sweeps=3), on_progress=trace.see)
        >>> table = wb.measures.sweep_errors(trace.sweeps)
        >>> table["sweep"].tolist(), table["error"].is_monotonic_decreasing
        ([0, 1, 2, 3], True)
    """
    rows = []
    for coder in sorted({fit.coder for fit in sweeps}):
        errors = [fit.errors for fit in sweeps if fit.coder == coder and fit.errors]
        start = sum(sweep_errors[0] for sweep_errors in errors)
        for sweep in range(max(map(len, errors), default=0)):
            now = sum(sweep_errors[min(sweep, len(sweep_errors) - 1)] for sweep_errors in errors)
            running = sum(sweep < len(sweep_errors) for sweep_errors in errors)
            rows.append((coder, sweep, now, running, now / start if start else 1.0))
    return pd.DataFrame(rows, columns=["coder", "sweep", "error", "running", "share"])


def tabulate_sweep_paths(fit: Sweeps) -> pd.DataFrame:
    """Tabulate how scale and mean of a few weight rows settled in one fit.

    Args:
        fit: One of `Trace.sweeps`.

    Returns:
        One row a weight row, plane and sweep: row, plane (from 1), sweep, scale, mean (NaN where none is stored).

    Example:
        >>> import workbench as wb
        >>> model, layer = wb.open_model("builtin"), "model.layers.0.self_attn.k_proj"
        >>> trace = wb.measures.Trace()
        >>> result = wb.quantize(model, layer, wb.recipe("binary", sweeps=3), on_progress=trace.see)
        >>> table = wb.measures.sweep_paths(trace.sweeps[0])
        >>> table["row"].nunique(), table["sweep"].unique().tolist()
        (8, [0, 1, 2, 3])
    """
    rows = [
        (row, plane + 1, sweep, float(scale), float("nan") if now.mean is None else float(now.mean[row]))
        for sweep, now in enumerate(fit.path)
        for plane, scales in enumerate(now.scale)
        for row, scale in enumerate(scales)
    ]
    table = pd.DataFrame(rows, columns=["row", "plane", "sweep", "scale", "mean"])
    return table.sort_values(["row", "plane", "sweep"], ignore_index=True)
