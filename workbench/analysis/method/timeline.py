"""A run of a quantizer as a timeline: learning, training of the codebook, sweeps, coding of columns, refitting of parameters."""

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import pandas as pd

from workbench.analysis.method.run_trace import Trace
from workbench.quantizers.coding_trace import CodingTrace
from workbench.quantizers.contract import Sweeps

LEARN, CODEBOOK, SWEEP, CODE, REFIT, CORRECTION = "learn", "codebook", "sweep", "code", "refit", "correction"


@dataclass(frozen=True)
class Moment:
    """One step of the timeline: step `number` (from 0) of `count` in its `phase`, about columns `first` to `last`.

    `frame` counts the frames of the trace that are over, `picture` says which of its pictures shows the coded columns. `loss` is
    what the phase lowers (or, while columns are coded, the error that adds up), over the largest in the phase; NaN where it has
    none.
    """

    kind: str
    phase: str
    number: int
    count: int
    first: int
    last: int
    loss: float
    frame: int
    picture: str = "block"


def build_timeline(trace: Trace) -> list[Moment]:
    """Every step that a run has told, in the order in which it happened; empty where it was not filmed."""
    coding_trace = trace.coding_trace
    if coding_trace is None:
        return []
    last = coding_trace.cols - 1
    learned = [step.loss if step.held_out is None else step.held_out for step in trace.learning]
    moments = _make_moments(LEARN, "learning the transform", learned, 0, last, 0)
    for number, losses in enumerate(coding_trace.rounds):
        moments += _make_moments(CODEBOOK, f"training codebook {number + 1}", losses, 0, last, 0)
    begin, waiting = 0, _group_by_columns(trace.sweeps)
    for frame, end in enumerate(coding_trace.ends):
        while waiting and waiting[0][0].start < end:
            fits = waiting.pop(0)
            name = f"sweeps over columns {fits[0].start:,} to {fits[0].stop - 1:,}"
            moments += _make_moments(SWEEP, name, _sum_sweep_errors(fits), fits[0].start, fits[0].stop - 1, frame)
        top = coding_trace.error[-1] or 1.0
        coded = coding_trace.error[frame] / top
        moments.append(Moment(CODE, "coding columns", frame, len(coding_trace.ends), begin, end - 1, coded, frame + 1))
        begin = end
    for event in (REFIT, CORRECTION):
        if event in coding_trace.pictures:
            moments.append(Moment(event, event, 0, 1, 0, last, float("nan"), len(coding_trace.ends), event))
    return moments


def _make_moments(
    kind: str, name: str, losses: list[float] | tuple[float, ...], first: int, last: int, frame: int
) -> list[Moment]:
    """A moment for each loss; a single one tells of nothing that was lowered, but a codebook is worth its mention."""
    if len(losses) < (1 if kind == CODEBOOK else 2):
        return []
    top = max(losses) or 1.0
    return [Moment(kind, name, i, len(losses), first, last, loss / top, frame) for i, loss in enumerate(losses)]


def _group_by_columns(sweeps: list[Sweeps]) -> list[list[Sweeps]]:
    """The fits in groups of the same columns: the coders of one block."""
    return [list(fits) for _, fits in groupby(sorted(sweeps, key=lambda fit: fit.start), key=lambda fit: fit.start)]


def _sum_sweep_errors(fits: list[Sweeps]) -> list[float]:
    """The error of several fits after each sweep; one that has stopped keeps its last."""
    error_lists = [fit.errors for fit in fits if fit.errors]
    return [
        sum(sweep_errors[min(i, len(sweep_errors) - 1)] for sweep_errors in error_lists)
        for i in range(max(map(len, error_lists), default=0))
    ]


def tabulate_timeline(moments: list[Moment]) -> pd.DataFrame:
    """One row a step: step (from 1), phase, number (within the phase, from 1), first column, last column, phase_loss."""
    rows = [(i + 1, m.phase, m.number + 1, m.first, m.last, m.loss) for i, m in enumerate(moments)]
    return pd.DataFrame(rows, columns=["scrub_step", "phase", "number", "first column", "last column", "phase_loss"])


@dataclass(frozen=True)
class Still:
    """The watched rows at one moment, `[rows, cells]` each, NaN where not coded yet, and `moved [cells]`, NaN where coded.

    `residual` is the largest |now − original| of a cell, `groups` the coder, `flipped` the share of its weights with a new sign.
    """

    residual: np.ndarray
    groups: np.ndarray
    flipped: np.ndarray
    moved: np.ndarray
    now: np.ndarray


def extract_still(coding_trace: CodingTrace, moment: Moment) -> Still:
    """What the trace shows at a moment; `now` marks the cells that were coded last."""
    picture, coded = coding_trace.pictures[moment.picture], coding_trace.coded.numpy() < moment.frame
    sizes = np.minimum(coding_trace.width, coding_trace.cols - coding_trace.width * np.arange(len(coded)))

    def shown(values: np.ndarray) -> np.ndarray:
        return np.where(coded, values.astype(np.float32), np.float32("nan"))

    moved = coding_trace.moved[moment.frame - 1].float().numpy() if moment.frame else np.zeros(len(coded), dtype=np.float32)
    return Still(
        residual=shown(picture.residual.float().numpy()),
        groups=shown(coding_trace.groups.numpy()),
        flipped=shown(picture.flipped.numpy() / sizes),
        moved=np.where(coded, np.float32("nan"), moved),
        now=coding_trace.coded.numpy() == moment.frame - 1 if moment.kind == CODE else np.zeros(len(coded), dtype=bool),
    )
