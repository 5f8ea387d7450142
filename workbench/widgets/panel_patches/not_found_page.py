"""An address that there is not: a page in the app's look with one sentence and a link, where Tornado writes a bare line.

Panel offers no place for such a page: `panel serve` takes further routes only from a plugin on its command line, and those come
before the apps, so that a route for everything would hide them. Tornado gives whatever no route takes to its own `ErrorHandler`;
its answer is exchanged, nothing else.
"""

from html import escape
from http import HTTPStatus
from typing import Any

from tornado.web import ErrorHandler

from workbench.views import theme as themes
from workbench.views.theme import Theme

NEEDED_WITH = {"panel": "1.9", "tornado": "6"}  # the newest releases that were seen to need this


def show_missing_addresses() -> None:
    """Answer in the app's look from now on."""
    ErrorHandler.write_error = _write_page  # type: ignore[method-assign,assignment]


def _write_page(self: ErrorHandler, status_code: int, **_: Any) -> None:
    """The whole answer; the status stays."""
    address = self.request.path if status_code == HTTPStatus.NOT_FOUND else ""
    self.finish(render_missing_page(address, self.get_argument("theme", "")))


def render_missing_page(address: str, theme: str = "") -> str:
    """HTML for an address that there is not; light, or dark where the theme or the visitor's system says so."""
    what = f"There is no page at {escape(address)}" if address else "This page cannot be shown"
    themed = "" if theme in themes.THEMES else f"@media (prefers-color-scheme:dark){{{_render_colours(themes.DARK)}}}"
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>workbench: no such page</title>"
        "<meta name='viewport' content='width=device-width,initial-scale=1'>"
        f"<style>body{{margin:0;font-family:{themes.FONT}}} main{{max-width:36rem;margin:16vh auto;padding:1.5rem 2rem;"
        "border-radius:10px;border:1px solid;overflow-wrap:anywhere} h1{font-size:1.35rem;margin:0 0 .6rem}"
        f"{_render_colours(themes.THEMES.get(theme, themes.LIGHT))}{themed}</style>"
        f"<body><main><h1>workbench</h1><p>{what}. <a href='/'>Open the explorer</a></p></main></body></html>"
    )


def _render_colours(theme: Theme) -> str:
    """Page, box and link."""
    return (
        f"body{{background:{theme.page};color:{theme.text}}} main{{background:{theme.surface};border-color:{theme.border}}} "
        f"a{{color:{theme.action}}}"
    )
