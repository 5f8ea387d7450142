"""A session is handed to the next page of the same visitor: once, and only while its own page lives."""

import gc

from workbench.models import ModelHandle
from workbench.session import Session
from workbench.widgets.shell.session_handover import keep_session, take_session


def test_a_session_is_taken_once(builtin: ModelHandle) -> None:
    session = Session(builtin)
    word = keep_session(session)
    assert take_session("another word") is None
    assert take_session(word) is session
    assert take_session(word) is None, "a copied address does not share what somebody does"


def test_no_session_outlives_its_page(builtin: ModelHandle) -> None:
    word = keep_session(Session(builtin))
    gc.collect()
    assert take_session(word) is None
