"""Sessions that a visitor takes along to the next page: the same one in other colours, with all results."""

import secrets
from weakref import WeakValueDictionary

from workbench.session import Session

WORD_BYTES = 16  # nobody guesses a word of so many random bytes
_sessions: WeakValueDictionary[str, Session] = WeakValueDictionary()  # a page that has ended keeps nothing alive


def keep_session(session: Session) -> str:
    """A word for which `take_session` gives this session once, as long as its page lives."""
    word = secrets.token_urlsafe(WORD_BYTES)
    _sessions[word] = session
    return word


def take_session(word: str) -> Session | None:
    """The session that was kept under this word; None where there is none any more."""
    return _sessions.pop(word, None)
