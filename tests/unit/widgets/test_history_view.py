"""The history on the screen: every step in its tree, walking in it, differences, and the session as a file."""

import json

import pytest

import workbench as wb
from workbench.session import Session
from workbench.session.history import History, Kind, Step
from workbench.widgets.shell.history import HistoryView, list_steps

QUERY, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"


@pytest.fixture
def view(session: Session) -> HistoryView:
    """Two branches below the first step, and then one more step."""
    session.ask("A dog")
    session.undo()
    session.select(DOWN)
    view = HistoryView(session)
    view.live.choose(lambda: session.use(wb.recipe("rtn", bits=3, group=32)))
    return view


def test_every_step_is_listed_below_the_one_it_follows(view: HistoryView) -> None:
    lines = [line.replace(" ", " ").rstrip() for _, line in list_steps(view.session.history)]
    assert lines == [
        f"○ 0 · opened {QUERY}",
        "○ 1 · prompt “A dog” (was “Once upon a time”)",
        f"  ○ 2 · layer {DOWN} (was {QUERY})",
        "  ● 3 · rtn bits 3 (was 2)",
    ]
    assert list(view.steps.options.values()) == [0, 1, 2, 3]
    assert "Step 3 of 3, on one of 2 branches." in view.title.object


def test_choosing_a_step_goes_there_and_says_what_differs(view: HistoryView) -> None:
    view.steps.value = 1
    assert (view.session.layer, view.session.choice.prompt) == (QUERY, "A dog")
    assert "prompt “A dog”" in view.difference.object
    view.other.value = 3
    assert view.difference.object.count("<li>") == 3
    view.other.value = 1
    assert "no differences" in view.difference.object


def test_the_file_brings_the_session_back(view: HistoryView, session: Session) -> None:
    content = view._file().getvalue()
    other = HistoryView(Session(session.shared))
    other.load.value = content
    assert other.session.choice == session.choice
    assert list(other.steps.options) == list(view.steps.options)
    assert wb.recipe("rtn", bits=3, group=32).code() in other.cell.value


def test_a_file_that_is_none_is_a_notice(view: HistoryView) -> None:
    for content, said in ((b"\xff{", "not UTF-8 text (byte 0)"), (json.dumps({}).encode(), "format is not 'workbench session'")):
        view.load.value = content
        assert said in view.notices.messages[0]
    assert view.session.layer == DOWN


def test_listing_thousands_of_steps_takes_one_pass_over_them(view: HistoryView, monkeypatch: pytest.MonkeyPatch) -> None:
    history = view.session.history
    choice = history.choice
    for parent in range(3000):
        history.steps.append(Step(Kind.ASK, choice, parent))
    before = listing_by_children(history)
    monkeypatch.setattr(History, "children", lambda *_: pytest.fail("the steps are read again for each step"))
    assert list_steps(history) == before


def listing_by_children(history: History) -> list[tuple[int, str]]:
    """The same list by asking each step for its children."""
    lines, waiting = list[tuple[int, str]](), [(0, 0)]
    while waiting:
        number, depth = waiting.pop()
        lines.append((number, f"{'  ' * depth}{'●' if number == history.at else '○'} {number} · {history.words(number)}"))
        children = history.children(number)
        waiting += [(branch, depth + 1) for branch in reversed(children[1:])] + [(child, depth) for child in children[:1]]
    return lines
