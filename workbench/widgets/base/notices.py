"""Notices: errors as sentences that stay on the page and can be copied."""

import html
import logging
from collections.abc import Callable
from typing import Any

import panel as pn

from workbench.errors import WorkbenchError
from workbench.views.theme import DARK, LIGHT

MAX_ERROR_CHARS = 300  # characters of an error that is no sentence of ours

log = logging.getLogger(__name__)


class Notices(pn.viewable.Viewer):
    """The latest mistakes and failures, newest first; a user's mistake is one sentence, a bug shows where it happened."""

    LIMIT = 20

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.view = pn.Column(sizing_mode="stretch_width", visible=False)

    def report(self, error: BaseException) -> None:
        """Show an error as a sentence; where it is no user's mistake, the log has its traceback."""
        if not isinstance(error, WorkbenchError):
            log.error("unexpected error", exc_info=error)
        self.say(describe(error))

    def guard(self, action: Callable[[], Any]) -> None:
        """Do something; what goes wrong becomes a notice.

        The page hears of all changes at once: for each message that shows or hides something, the browser lays out everything
        anew, and draws every figure again.
        """
        try:
            with pn.io.hold():
                action()
        except Exception as error:  # noqa: BLE001  whatever happens is shown, nothing is lost
            self.report(error)

    def say(self, message: str) -> None:
        """Show a sentence, newest first."""
        self.messages = [message, *self.messages][: self.LIMIT]
        clear = pn.widgets.Button(label="Dismiss", variant="outline", width=90)
        clear.on_click(lambda _: self.dismiss())
        box = pn.pane.HTML(render_alert(message), sizing_mode="stretch_width")
        self.view[:] = [pn.Row(box, clear, sizing_mode="stretch_width")]
        self.view.visible = True

    def dismiss(self) -> None:
        """Hide the box; `messages` keeps everything."""
        self.view[:] = []
        self.view.visible = False

    def __panel__(self) -> pn.viewable.Viewable:
        return self.view


def describe(error: BaseException) -> str:
    """What a visitor reads about an error."""
    if isinstance(error, WorkbenchError):
        return str(error)
    words = " ".join(f"{type(error).__name__}: {error}".split())[:MAX_ERROR_CHARS]
    return f"This failed because of a bug in the workbench ({words}). The log has the details; please report it."


def render_alert(message: str) -> str:
    """A message as HTML, read aloud at once; it begins as a sentence does, and a traceback keeps its lines."""
    colours = DARK if pn.config.theme == "dark" else LIGHT
    look = (
        f"background:{colours.surface};color:{colours.text};border:1px solid {colours.danger};border-left-width:6px;"
        "border-radius:6px;padding:8px 12px;font-size:0.95rem;white-space:pre-wrap;overflow-wrap:anywhere"
    )
    return f"<div role='alert' style='{look}'>{html.escape(message[:1].upper() + message[1:])}</div>"
