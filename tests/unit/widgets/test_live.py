"""News between components goes through the events of `Live`, and nowhere else."""

import ast
from collections.abc import Iterator
from pathlib import Path

import param
import pytest

from workbench.models import ModelHandle
from workbench.session import Session
from workbench.widgets.base import live
from workbench.widgets.base.component import Component
from workbench.widgets.base.live import Live
from workbench.widgets.shell import explorer

WIDGETS = Path(__file__).resolve().parents[3] / "workbench" / "widgets"
EVENTS = ("choice", "selection", "results", "run", "steps")


def components(kind: type[Component] = Component) -> Iterator[type[Component]]:
    for child in kind.__subclasses__():
        yield child
        yield from components(child)


def changed_counters(tree: ast.AST) -> set[str]:
    """Events that code announces by itself: `live.results += 1`, `live.results = 3`."""
    targets = [node.target for node in ast.walk(tree) if isinstance(node, ast.AugAssign)]
    targets += [target for node in ast.walk(tree) if isinstance(node, ast.Assign) for target in node.targets]
    return {
        target.attr
        for target in targets
        if isinstance(target, ast.Attribute) and target.attr in EVENTS and ast.unparse(target.value).endswith("live")
    }


def test_each_event_is_drawn_and_each_component_follows_events() -> None:
    assert {name for name, value in Live.param.objects().items() if isinstance(value, param.Integer)} == set(EVENTS)
    assert live.__doc__ is not None
    for event in EVENTS:
        assert f"{event} " in live.__doc__
    assert explorer.Explorer in components()
    kinds = list(components())
    assert len(kinds) > 20, "the components were not imported"
    for kind in kinds:
        assert set(kind.watches) <= set(EVENTS), kind


@pytest.mark.parametrize("path", sorted(WIDGETS.rglob("*.py")), ids=lambda path: path.stem)
def test_events_are_announced_in_one_way(path: Path) -> None:
    assert changed_counters(ast.parse(path.read_text())) == set()


def test_an_event_announced_by_hand_is_noticed() -> None:
    assert changed_counters(ast.parse("self.live.results += 1\nlive.run = 3\nself.results = 4")) == {"results", "run"}


def test_a_component_that_follows_two_events_is_told_once(builtin: ModelHandle) -> None:
    news, session = [], Live(Session(builtin))
    session.param.watch(lambda *events: news.append(sorted(event.name for event in events)), ["results", "run", "choice"])
    session.announce("run", "results")
    assert news == [["results", "run"]]
    assert (session.run, session.results, session.choice) == (1, 1, 0)
