"""Flips: questions that a changed model answers differently, which equal accuracies hide."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench import intervals
from workbench.analysis.predictions.task_accuracy import TaskResult, TaskScore
from workbench.errors import ModelError
from workbench.intervals import Interval

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class TaskFlips:
    """What became of the answers to one task's questions: `worsened` were right and are wrong, `improved` the other way round.

    `kept_right` and `kept_wrong` did not change. `difference` is the changed model's accuracy less the original's, with its
    paired 95 % interval; `flips` is the share of questions that flipped either way, with its exact binomial one.
    """

    task: str
    metric: str
    worsened: int
    improved: int
    kept_right: int
    kept_wrong: int

    @property
    def questions(self) -> int:
        """How many questions both models answered."""
        return self.worsened + self.improved + self.kept_right + self.kept_wrong

    @property
    def difference(self) -> float:
        """The changed model's accuracy less the original's."""
        return (self.improved - self.worsened) / self.questions

    @property
    def difference_interval(self) -> Interval:
        """Where the difference on more such questions may lie; the same questions were asked, so it is paired."""
        return intervals.compute_paired_share_interval(self.worsened, self.improved, self.questions)

    @property
    def flips(self) -> float:
        """The share of questions that flipped."""
        return (self.worsened + self.improved) / self.questions

    @property
    def flips_interval(self) -> Interval:
        """Where the share on more such questions may lie."""
        return intervals.compute_binomial_interval(self.worsened + self.improved, self.questions)


def count_flips(original: TaskResult, changed: TaskResult) -> list[TaskFlips]:
    """Count how many answers flipped from right to wrong and back, for every metric that is either right or wrong.

    Args:
        original: What the original scored, from `wb.measures.task_accuracy`.
        changed: What the changed model scored on the same questions.

    Returns:
        One entry a task and metric.

    Raises:
        ModelError: Where the two did not answer the same questions.

    Example:
        >>> import numpy as np
        >>> import workbench as wb
        >>> from workbench.analysis.predictions.task_accuracy import TaskResult, TaskScore
        >>> def result(*right):
        ...     score = TaskScore("colours", "acc", "none", np.mean(right), None, ("0", "1", "2"), np.array(right, float))
        ...     return TaskResult("a model", (score,), "0.4")
        >>> flips = wb.measures.task_flips(result(1, 1, 0), result(0, 1, 1))[0]
        >>> flips.worsened, flips.improved, flips.difference
        (1, 1, 0.0)
    """
    pairs = _pair_scores(original, changed)
    return [_count(first, second) for first, second in pairs if first.is_binary and second.is_binary]


def _pair_scores(original: TaskResult, changed: TaskResult) -> Iterator[tuple[TaskScore, TaskScore]]:
    """Scores of the same task and metric; ModelError where a task, or a question of it, is missing on one side."""
    sides = [{(s.task, s.metric, s.filter): s for s in result.scores} for result in (original, changed)]
    if sides[0].keys() != sides[1].keys():
        odd = sorted(sides[0].keys() ^ sides[1].keys())[0]
        raise ModelError(f"{odd[1]} of task {odd[0]!r} is scored for one of the models only; let both answer the same tasks.")
    for key, first in sides[0].items():
        second = sides[1][key]
        if first.questions != second.questions:
            sizes = f"{len(first.questions)} and {len(second.questions)}"
            raise ModelError(f"{sizes} questions of task {key[0]!r} are not the same ones; let both answer the same questions.")
        yield first, second


def _count(first: TaskScore, second: TaskScore) -> TaskFlips:
    """The four kinds of questions."""
    before, after = (np.asarray(score.scores, dtype=bool) for score in (first, second))
    kinds = (before & ~after, ~before & after, before & after, ~before & ~after)
    return TaskFlips(first.task, first.metric, *(int(kind.sum()) for kind in kinds))


def tabulate_flips(flips: list[TaskFlips]) -> "pd.DataFrame":
    """Tabulate flips.

    Args:
        flips: From `wb.measures.task_flips`.

    Returns:
        One row an entry: task, metric, questions, worsened, improved, kept_right, kept_wrong, difference, and its 95 % interval
        difference_low, difference_high.

    Example:
        >>> import workbench as wb
        >>> wb.measures.flips_table([]).columns.tolist()[:4]
        ['task', 'metric', 'questions', 'worsened']
    """
    import pandas as pd

    plain = ["task", "metric", "questions", "worsened", "improved", "kept_right", "kept_wrong", "difference"]
    rows = [
        {name: getattr(entry, name) for name in plain} | intervals.make_interval_columns("difference", entry.difference_interval)
        for entry in flips
    ]
    return pd.DataFrame(rows, columns=[*plain, "difference_low", "difference_high"])
