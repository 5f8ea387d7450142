"""History: every step as a value, in a tree. Going back and taking another step keeps the earlier branch."""

from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from threading import Lock
from typing import Any, Self

from workbench.errors import WorkbenchError
from workbench.json_value import JsonValue
from workbench.session.choice import Choice
from workbench.session.differences import describe_differences

SAVE_SESSION_ADVICE = "save the session again"


class Kind(StrEnum):
    """What a step was; the last two change no choice, they say what was made from it."""

    OPEN = "open"
    SELECT = "select"
    USE = "use"
    ASK = "ask"
    MARK = "mark"
    RESTORE = "restore"
    QUANTIZE = "quantize"
    QUANTIZE_MODEL = "quantize model"


@dataclass(frozen=True)
class Step:
    """One step: the choice after it, the number of the step before it (None for the first), and what it made, in words."""

    kind: Kind
    choice: Choice
    parent: int | None = None
    outcome: str = ""


class History:
    """Steps by number, in the order they were taken, and `at`, the one that is current."""

    def __init__(self, first: Choice) -> None:
        self.steps = [Step(Kind.OPEN, first)]
        self.at = 0
        self._forward: dict[int, int] = {}  # from a step to the one after it that was current last
        self._lock = Lock()  # a job's end is written down from its own thread

    @property
    def choice(self) -> Choice:
        """The current choice."""
        return self.steps[self.at].choice

    def take(self, kind: Kind, choice: Choice) -> None:
        """A step from here, unless it changes nothing. Marks in a row are one step."""
        if choice == self.choice:
            return
        with self._lock:
            current = self.steps[self.at]
            if kind is Kind.MARK is current.kind and not self.children(self.at):
                self.steps[self.at] = Step(kind, choice, current.parent)
            else:
                self._go(self._add(Step(kind, choice, self.at)))

    def record(self, kind: Kind, start: int, outcome: str) -> None:
        """What a run that was started at step `start` has made; it becomes current where nothing else was done meanwhile."""
        with self._lock:
            number = self._add(Step(kind, self.steps[start].choice, start, outcome))
            if self.at == start:
                self._go(number)

    def go(self, number: int) -> None:
        """Make any step the current one."""
        if not 0 <= number < len(self.steps):
            raise WorkbenchError(f"there is no step {number}; steps go from 0 to {len(self.steps) - 1}.")
        self._go(number)

    def undo(self) -> None:
        """Back to the last step with another choice; nothing happens where there is none."""
        if (before := self._before()) is not None:
            self._go(before)

    def redo(self) -> None:
        """Forward again, along the branch that was current last, to the next step with another choice."""
        if (after := self._after()) is not None:
            self._go(after)

    @property
    def can_undo(self) -> bool:
        """Whether there was another choice before."""
        return self._before() is not None

    @property
    def can_redo(self) -> bool:
        """Whether there is another choice to go forward to."""
        return self._after() is not None

    def children(self, number: int) -> list[int]:
        """The steps that were taken from one."""
        return [child for child, step in enumerate(self.steps) if step.parent == number]

    def all_children(self) -> list[list[int]]:
        """The children of every step, by number; one pass over the steps for all of them."""
        children: list[list[int]] = [[] for _ in self.steps]
        for number, step in enumerate(self.steps):
            if step.parent is not None:
                children[step.parent].append(number)
        return children

    def path(self, number: int) -> list[int]:
        """The steps from the first to one."""
        path: list[int] = []
        step_number: int | None = number
        while step_number is not None:
            path.append(step_number)
            step_number = self.steps[step_number].parent
        return path[::-1]

    def words(self, number: int) -> str:
        """What a step did, in words."""
        step = self.steps[number]
        if step.parent is None:
            return f"opened {step.choice.layer}"
        return step.outcome or "; ".join(describe_differences(self.steps[step.parent].choice, step.choice))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; recipes that occur more than once are written as often."""
        steps = [
            {"kind": str(step.kind), "parent": step.parent, "outcome": step.outcome, "choice": step.choice.to_dict()}
            for step in self.steps
        ]
        return {"at": self.at, "steps": steps}

    @classmethod
    def read(cls, value: JsonValue) -> Self:
        """The inverse of `to_dict`; WorkbenchError says which step cannot be read."""
        value.check_names("at", "steps")
        steps = [_read_step(number, saved) for number, saved in enumerate(value.get("steps", SAVE_SESSION_ADVICE).elements())]
        if not steps:
            raise WorkbenchError(f"{value} has no first step; {SAVE_SESSION_ADVICE}.")
        history = cls(steps[0].choice)
        history.steps = steps
        for number, step in enumerate(steps):
            if step.parent is not None:
                history._forward[step.parent] = number
        history.go(value.get("at", SAVE_SESSION_ADVICE).as_whole())
        return history

    def _add(self, step: Step) -> int:
        self.steps.append(step)
        return len(self.steps) - 1

    def _go(self, number: int) -> None:
        self.at = number
        path = self.path(number)
        self._forward |= dict(pairwise(path))

    def _before(self) -> int | None:
        return next((n for n in reversed(self.path(self.at)) if self.steps[n].choice != self.choice), None)

    def _after(self) -> int | None:
        number = self._forward.get(self.at)
        while number is not None and self.steps[number].choice == self.choice:
            number = self._forward.get(number)
        return number


def _read_step(number: int, value: JsonValue) -> Step:
    value.check_names("kind", "parent", "outcome", "choice")
    kind = Kind(value.get("kind", SAVE_SESSION_ADVICE).as_choice(list(Kind)))
    choice, outcome = Choice.read(value.get("choice", SAVE_SESSION_ADVICE)), value.get("outcome", SAVE_SESSION_ADVICE).as_text()
    parent = value.get("parent", SAVE_SESSION_ADVICE)
    if number == 0 and parent.value is not None:
        raise parent.wrong("null: the first step follows none")
    return Step(kind, choice, None if number == 0 else parent.as_whole(high=number - 1), outcome)
