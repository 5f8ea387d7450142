"""A row of chips of which one is lit; the arrow keys move along it, and a screen reader says which one it is."""

from typing import Any

import panel as pn
import param

from workbench.widgets.base.component import choose_theme
from workbench.widgets.elements.choice_row import ALONG, UP_AND_DOWN, render_choice_row_js

CHIP_BAR_JS = render_choice_row_js("chips", ("radiogroup", "radio"), "aria-checked", ALONG | UP_AND_DOWN)


class ChipBar(pn.custom.JSComponent):
    """`options` are values by what their chips say, of which one, `value`, is lit; `label` says what is chosen.

    The lit chip is orange, as what is quantized; with `beside` it is framed in blue-grey, as what that is compared with.
    """

    _esm = CHIP_BAR_JS

    label = param.String(default="")
    options = param.Dict(default={})
    value = param.String(default="")

    def __init__(self, *, beside: bool = False, **settings: Any) -> None:
        super().__init__(**{"margin": (5, 10), "sizing_mode": "stretch_width", **settings})
        self.stylesheets = [*self.stylesheets, _render_chip_bar_css(beside)]


def _render_chip_bar_css(beside: bool) -> str:
    """Chips wrap into as many lines as they take, as wide as their words."""
    colours = choose_theme()
    lit = f"background:{colours.action};color:{colours.contrast};border-color:{colours.action}"
    if beside:
        edge = f"border-color:{colours.original};box-shadow:0 0 0 2px {colours.original}"
        lit = f"background:{colours.surface};color:{colours.text};{edge}"
    return (
        ".chips{display:flex;flex-wrap:wrap;gap:5px}"
        f".chips button{{font:inherit;font-size:0.85rem;color:{colours.text};background:{colours.raised};cursor:pointer;"
        f"border:1px solid {colours.border};border-radius:14px;padding:2px 11px;max-width:100%;overflow-wrap:anywhere}}"
        f".chips button:hover{{border-color:{colours.muted}}} .chips button[aria-checked=true]{{{lit};font-weight:600}}"
        f".chips button:focus-visible{{outline:2px solid {colours.accent};outline-offset:2px}}"
    )
