"""The served page: what the address says is shown, what is chosen is in the address, and no exception is lost."""

from functools import partial
from urllib.parse import parse_qs

import panel as pn
import pytest
from bokeh.document import Document
from panel.io.location import Location
from panel.io.state import set_curdoc

import workbench as wb
from workbench.errors import WorkbenchError
from workbench.session import Selection, Session
from workbench.widgets.base.component import FigureFrame
from workbench.widgets.shell import page
from workbench.widgets.shell.explorer import Explorer

DOWN = "model.layers.0.mlp.down_proj"
FREE = wb.recipe("rtn", bits=3, group=32).replace(correction=wb.part("correction", "low-rank", rank=2))


@pytest.fixture
def explorer(session: Session) -> Explorer:
    return Explorer(session, threaded=False)


def opened(session: Session, monkeypatch: pytest.MonkeyPatch, **query: str | bytes) -> Explorer:
    """The explorer as a visitor finds it who comes to the page of this session's model with this address."""
    arguments = {name: [value.encode() if isinstance(value, str) else value] for name, value in query.items()}
    found: list[Explorer] = []
    monkeypatch.setattr(type(pn.state), "session_args", property(lambda _: arguments))
    monkeypatch.setattr(page, "open_shared_model", lambda _: session.shared)
    monkeypatch.setattr(page, "Explorer", partial(Explorer, threaded=False))
    monkeypatch.setattr(page, "visit", lambda make: found.append(make()))
    page.build_explorer_page("tiny")
    return found[0]


def address(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the page writes into its address."""
    location = Location()
    monkeypatch.setattr(type(pn.state), "location", property(lambda _: location))
    page.write_address(explorer)
    return {name: values[0] for name, values in parse_qs(location.search[1:]).items()}


@pytest.mark.parametrize("recipe", [wb.recipe("btc", bits=1.1), FREE], ids=["preset", "composed"])
def test_an_address_shows_the_same_again(
    explorer: Explorer, session: Session, monkeypatch: pytest.MonkeyPatch, recipe: wb.Recipe
) -> None:
    session.select(DOWN)
    session.use(recipe)
    session.ask("Lily & Tom")
    session.mark(channels=[3, 17], layers=[DOWN])
    explorer.bring("Ledger")
    other = opened(session, monkeypatch, **address(explorer, monkeypatch))
    assert other.session.choice == session.choice
    assert other.tabs.front == "Ledger"


def test_an_address_without_anything_changes_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = opened(session, monkeypatch, tab="Nowhere")
    assert not explorer.session.can_undo
    assert explorer.tabs.front == "Weights"


def test_marks_in_the_address_are_marked(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    assert opened(session, monkeypatch, channels="3,17").session.selection == Selection(channels=(3, 17))


def test_what_an_address_says_wrongly_is_explained_on_a_page_that_works(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    explorer = opened(session, monkeypatch, layer=DOWN, channels="3,x", tab="Ledger")
    assert "channels in the address holds 'x'; it takes whole numbers, e.g. channels=3,17." in explorer.notices.messages
    assert (explorer.session.layer, explorer.tabs.front) == (DOWN, "Ledger")


def test_an_address_that_is_no_text_is_explained_on_a_page_that_works(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    explorer = opened(session, monkeypatch, prompt=b"\xff\xfe")
    assert "prompt in the address is not UTF-8 text (byte 0); save it as UTF-8." in explorer.notices.messages
    assert not explorer.session.can_undo


def test_a_mark_of_too_many_digits_is_explained(session: Session) -> None:
    with pytest.raises(WorkbenchError, match=r"channels in the address holds '9+\.\.\.9+'; it takes whole numbers"):
        page.read_address(session, {"channels": "9" * 5000})


def test_what_an_address_says_is_drawn_once(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    draw = FigureFrame.draw
    monkeypatch.setattr(FigureFrame, "draw", lambda self, figure: (drawn.append(figure.question), draw(self, figure)))
    explorer = opened(session, monkeypatch, layer=DOWN, recipe="rtn:bits=3,group=32", tab="Saliency", channels="3")
    assert list(explorer.tabs.built) == ["Saliency"], "no other tab was built on the way"
    assert "Which channels matter most for the output?" in drawn
    assert len(drawn) == len(set(drawn))


def test_an_exception_in_any_callback_becomes_a_notice(explorer: Explorer, bugs: list[BaseException]) -> None:
    document, button = Document(), pn.widgets.Button(label="Break")
    button.on_click(lambda _: 1 / 0)
    with set_curdoc(document):
        page.visit(lambda: explorer)
        button._comm_change(document, "", None, None, "clicks", 0, 1)  # as the browser sends it
    assert "ZeroDivisionError: division by zero" in explorer.notices.messages[0]
    assert explorer.notices.view.visible
    assert [type(bug) for bug in bugs] == [ZeroDivisionError]
    bugs.clear()
    assert pn.config.exception_handler is None, "the handler belongs to the visitor's page"
