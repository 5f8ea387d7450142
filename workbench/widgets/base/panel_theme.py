"""The theme of Panel's own fields: the page's colours, and arrows that are visible in light and dark mode."""

from functools import cache
from typing import Any, ClassVar
from urllib.parse import quote

from panel.theme.base import Design, Inherit
from panel.theme.native import Native
from panel.viewable import Viewable

from workbench.views.theme import Theme

ARROW = "<svg viewBox='0 0 25 20' xmlns='http://www.w3.org/2000/svg'><path d='M 0,0 25,0 12.5,20 Z' fill='{}'/></svg>"


@cache
def build_design(colours: Theme) -> type[Design]:
    """Panel's plain design with our rules behind its own."""

    class Look(Native):
        modifiers: ClassVar[dict[Any, dict[str, Any]]] = {Viewable: {"stylesheets": [Inherit, render_fields_css(colours)]}}

    return Look


def build_page_styles(colours: Theme) -> dict[str, str]:
    """Styles of what stands around all components, with the colours that Panel's own style sheets take.

    Without them those would be JupyterLab's, and light components had white words where it is dark.
    """
    return {
        "background": colours.page,
        "color": colours.text,
        "color-scheme": colours.name,  # the words in fields are the browser's own where a component is an ipywidget
        "--design-background-color": colours.surface,
        "--design-background-text-color": colours.text,
        "--design-surface-color": colours.border,  # plain buttons, and the rims of others
        "--design-surface-text-color": colours.text,
        "--design-primary-color": colours.action,
        "--design-primary-text-color": colours.contrast,
        "--bokeh-font-size": "0.8rem",  # of fields and buttons; larger with all the rest where a page is presented
    }


def render_fields_css(colours: Theme) -> str:
    """Rules for text fields, lists and the arrows beside numbers."""
    arrow = f'url("data:image/svg+xml;utf8,{quote(ARROW.format(colours.muted))}")'
    return (
        f".bk-input{{font-size:inherit;background-color:{colours.surface};color:{colours.text};border-color:{colours.muted}}}"
        f".bk-input:focus-visible{{outline:2px solid {colours.accent};outline-offset:1px}}"
        f".bk-input[disabled]{{background-color:{colours.raised};border-color:{colours.border}}}"
        f"select.bk-input:not([size]){{background-image:{arrow}}}"
        ".bk-btn{white-space:normal;overflow-wrap:anywhere;max-width:100%}"  # enlarged type takes lines, not the page's width
        f".bk-input::file-selector-button{{background:{colours.raised};color:{colours.text};border:1px solid {colours.muted}}}"
        f".bk-spin-wrapper{{--color:{colours.muted};--disabled-color:{colours.border}}}"
    )
