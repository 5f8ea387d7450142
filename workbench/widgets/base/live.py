"""A session that components watch. It can be opened on a model, a result or another component.

How a change travels from one component to the others:

    a control is turned          the session changes           what changed is announced     who follows it is redrawn
    ┌───────────────────┐        ┌───────────────────┐         ┌─────────────────────┐       ┌───────────────────────┐
    │ component         │ choose │ session           │ changed │ Live                │ watch │ every component that  │
    │  a layer, recipe, ├───────▶│  choice, results, ├────────▶│  choice, selection, ├──────▶│  names the event in   │
    │  prompt, mark     │  mark  │  runs; undo       │         │  results, run, steps│       │  `watches`: `changed` │
    └─────────┬─────────┘        └─────────▲─────────┘         └──────────▲──────────┘       └───────────┬───────────┘
              │ a long computation         │ result                       │ announce                     │
              │                  ┌─────────┴─────────┐                    │             behind a tab: later, when it is
              └─────────────────▶│ JobPanel: a job,  ├────────────────────┘             looked at; else `refresh` now
                                 │ looked at on time │ its steps and end
                                 └───────────────────┘

    choice      another layer, recipe or prompt       selection   other layers, channels, rows, codes or tokens are marked
    results     new results, or another one shown     run         another run is shown, or its figures were measured
    steps       a running job was looked at

Nothing else carries news between components: `front` asks for a tab, and `waiting` greys what a preview is about to replace.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import param
from torch import nn

from workbench.artifact import PackedModel
from workbench.errors import WorkbenchError
from workbench.models import ModelHandle, open_model
from workbench.quantized import QuantizedLayer, QuantizedModel
from workbench.recipe import LayerPlan
from workbench.session import Session, SharedModel

Subject = Any  # what `open_live_session` takes; a component is only known above this file


class Live(param.Parameterized):
    """A session that can be watched. Each event of the drawing above is a number that counts how often it was announced.

    `front` is the tab that was asked for last. `waiting` says that a preview of the layer on show is being computed; that can
    only be where somebody makes previews (`previews`).
    """

    choice = param.Integer(default=0)
    selection = param.Integer(default=0)
    results = param.Integer(default=0)
    run = param.Integer(default=0)
    steps = param.Integer(default=0)
    front = param.String(default="")
    previews = param.Boolean(default=False)
    waiting = param.Boolean(default=False)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def choose(self, change: Callable[[], None]) -> None:
        """Change the session's choice and tell everybody what did change, each watcher once."""
        before = self.session.choice
        change()
        after = self.session.choice
        chosen = replace(before, selection=after.selection) != after
        if chosen:
            has_result = self.session.result is not None or self.session.preview is not None
            self.waiting = self.previews and before.layer == after.layer and not has_result
        self.param.update(choice=self.choice + chosen, selection=self.selection + (before.selection != after.selection))

    def announce(self, *events: Literal["choice", "selection", "results", "run", "steps"]) -> None:
        """Tell every component that follows one of these events, each component once."""
        self.param.update(**{event: getattr(self, event) + 1 for event in events})

    def mark(self, **changes: Iterable[str] | Iterable[int]) -> None:
        """Mark layers, channels, rows, codes or tokens for everybody, as `Session.mark` does."""
        self.choose(lambda: self.session.mark(**changes))


def open_live_session(subject: Subject, layer: str | QuantizedLayer | None, component: str) -> Live:
    """The live session of a component or of a subject; `layer` is then selected in it, or a result for one taken into it.

    `component` is the class that asks, for the error.
    """
    linked = subject if isinstance(subject, Live) else getattr(subject, "live", None)
    live = linked if isinstance(linked, Live) else Live(_open_session(subject, component))
    if isinstance(layer, str):
        live.choose(lambda: live.session.select(layer))
    elif isinstance(layer, QuantizedLayer):
        live.choose(lambda: _add_result(live.session, layer))
        live.announce("results")
    elif layer is not None:
        raise WorkbenchError(
            f"{component} takes a layer's name or a result of wb.quantize as its layer, not a {_describe_type(layer)}."
        )
    return live


def _open_session(subject: Subject, component: str) -> Session:
    """A session on a subject, which has its results."""
    if isinstance(subject, Session):
        return subject
    if isinstance(subject, ModelHandle | SharedModel):
        return Session(subject)
    if isinstance(subject, str | Path | nn.Module):
        return Session(open_model(subject))
    if isinstance(subject, PackedModel):
        subject = subject.quantized
    if isinstance(subject, QuantizedModel):
        session = Session(open_model(subject.source))
        session.take(subject)
        _show_result(session, next(iter(subject.layers.values())))
        return session
    if isinstance(subject, QuantizedLayer):
        if not subject.source:
            raise WorkbenchError(
                f"the result for {subject.name} names no model that can be opened; give both: wb.{component}(model, result)."
            )
        session = Session(open_model(subject.source))
        _add_result(session, subject)
        return session
    raise WorkbenchError(
        f"{component} takes a model from wb.open_model, its name, a session, another component, or a result of wb.quantize or "
        f"wb.quantize_model, not a {_describe_type(subject)}."
    )


def _show_result(session: Session, result: QuantizedLayer) -> None:
    """Select a result's layer and put its recipe on the bench."""
    session.select(result.name)
    session.use(result.recipe)


def _add_result(session: Session, result: QuantizedLayer) -> None:
    """Take a result into a session, and show it."""
    plan, facts = LayerPlan.uniform(result.recipe, result.name), {"tokens": result.tokens}
    _show_result(session, result)
    session.take(QuantizedModel(session.model.source, {result.name: result}, plan, facts, shapes=session.model.shapes))


def _describe_type(value: object) -> str:
    """What to call a value that was not expected."""
    return type(value).__name__
