"""An accessible row of tabs: the arrow keys move along it, and the active tab stands out in light and dark mode."""

from typing import Any

import panel as pn
import param

from workbench.widgets.base.component import choose_theme
from workbench.widgets.elements.choice_row import ALONG, render_choice_row_js

TAB_BAR_JS = render_choice_row_js("bar", ("tablist", "tab"), "aria-selected", ALONG)


class TabBar(pn.custom.JSComponent):
    """Titles of which one, `value`, is in front; `label` says what is chosen, for those who cannot see the row.

    `strong` draws it as the first of two levels.
    """

    _esm = TAB_BAR_JS

    label = param.String(default="")
    options = param.List(default=[], item_type=str)
    value = param.String(default="")

    def __init__(self, *, strong: bool = False, **settings: Any) -> None:
        super().__init__(**{"margin": 0, **settings})
        self.stylesheets = [*self.stylesheets, _render_tab_bar_css(strong)]


def _render_tab_bar_css(strong: bool) -> str:
    """The page's colours: the first level stands out in a frame, the second goes on beside it."""
    colours = choose_theme()
    weight, frame = (600, f"background:{colours.raised};border-radius:6px;margin-right:6px") if strong else (400, "")
    # a narrow page has the titles in as many lines as they take: a row to scroll would hide the last ones
    return (
        f".bar{{display:flex;flex-wrap:wrap;margin-bottom:6px;{frame}}}"
        f".bar button{{font:inherit;font-size:0.9rem;font-weight:{weight};color:{colours.muted};background:none;border:0;"
        "border-bottom:3px solid transparent;padding:5px 9px;cursor:pointer}"
        f".bar button:hover{{color:{colours.text};background:{colours.raised}}}"
        f".bar button[aria-selected=true]{{color:{colours.text};font-weight:700;border-bottom-color:{colours.action}}}"
        f".bar button:focus-visible{{outline:2px solid {colours.accent};outline-offset:-2px}}"
    )
