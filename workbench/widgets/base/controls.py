"""Controls that several components share, each with its label and tooltip."""

from typing import Any

import panel as pn

from workbench.widgets.base.component import choose_theme, render_chosen_css

BESIDE = (22, 10, 5, 10)  # a button's margin that puts it on the line of the fields beside it
PLAIN_MARGIN = (5, 10)
ROOT_PIXELS = 16  # of the page's type where nobody enlarges it


def build_action_button(
    label: str, description: str, width: int | None, *, margin: tuple[int, ...] = BESIDE, main: bool = True
) -> pn.widgets.Button:
    """A button: the one for what a component is there for, or with `main=False` one of the others.

    It has at least `width`, which is in pixels of a page whose type is not enlarged; without a width it is as wide as its place.
    """
    return pn.widgets.Button(
        label=label,
        color="primary" if main else "default",
        styles={} if width is None else scale_width(width),
        sizing_mode="stretch_width" if width is None else None,
        margin=margin,
        description=description,
        stylesheets=[render_chosen_css()],
    )


def scale_width(pixels: int) -> dict[str, str]:
    """Style of what is at least as wide as this where type is not enlarged; wider with it, but never than its place."""
    return {"min-width": f"min(100%, {pixels / ROOT_PIXELS:g}rem)"}


def build_folded_card(title: str, content: Any, *, margin: tuple[int, ...] = (6, 10)) -> pn.Card:
    """What few visitors need: its title, which opens it."""
    colours = choose_theme()
    look = (
        f":host(.card){{box-shadow:none;outline:1px solid {colours.border}}} .card-header{{background:{colours.raised};"
        f"color:{colours.text};font-weight:600}} .card-header:focus-visible{{outline:2px solid {colours.accent}}}"
    )
    return pn.Card(content, title=title, collapsed=True, sizing_mode="stretch_width", margin=margin, stylesheets=[look])


def build_token_input(value: int) -> pn.widgets.IntInput:
    """How many tokens a measurement reads."""
    what = "Number of tokens of the evaluation text to use"
    return pn.widgets.IntInput(label="Tokens", value=value, start=64, end=20_000, step=256, width=110, description=what)
