"""Sentences as HTML. All text of a page is escaped here, so that tokens, file names and model names are never run as code."""

from collections.abc import Iterable
from html import escape

QUESTION_HTML = "<h2 style='font-size:1.15rem;margin:0'>{}</h2>"
ANSWER = "<p style='margin:2px 0;font-size:0.9rem;line-height:1.4' aria-live='polite'>{}</p>"


def render_heading(question: str, answer: str) -> str:
    """A question as the title and its answer."""
    return render_title(question) + render_answer(answer)


def render_title(question: str) -> str:
    """The question that a figure answers."""
    return QUESTION_HTML.format(escape(question))


def render_answer(answer: str) -> str:
    """The answer under a title, read aloud when it changes."""
    return ANSWER.format(escape(answer))


def render_paragraph(sentence: str, *, live: bool = True) -> str:
    """A sentence; a `live` one is read aloud when it changes."""
    return f"<p style='margin:2px 0'{' aria-live=polite' * live}>{escape(sentence)}</p>"


def render_bullets(sentences: Iterable[str]) -> str:
    """A list of sentences, read aloud when it changes."""
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<ul style='margin:2px 0' aria-live='polite'>{items}</ul>"


def render_small_note(sentence: str) -> str:
    """A note in small type."""
    return f"<small>{escape(sentence)}</small>"


def render_code(code: str) -> str:
    """Code as it is written, its lines folded."""
    return f"<pre style='white-space:pre-wrap;font-size:0.8rem'>{escape(code)}</pre>"
