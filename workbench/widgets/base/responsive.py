"""Responsive columns: side by side on wide pages, below each other on narrow ones."""

from typing import Any

import panel as pn

from workbench.widgets.base.component import choose_theme

# how wide the columns of the page are; on a narrow page the layers lie above the figures and the bench below them
WIDTHS = {"layers": ("2 1 300px", "250px"), "centre": ("4 1 520px", "320px"), "bench": ("2 1 290px", "250px")}
WIDTHS |= {"strip": ("1 1 420px", "250px")}
NARROW = "1000px"


def build_responsive_column(part: Any, name: str) -> pn.Column:
    """A column of the page that grows, and folds on a narrow page."""
    colours, (flex, least) = choose_theme(), WIDTHS[name]
    look = f"background:{colours.surface};border:1px solid {colours.border};border-radius:10px;padding:6px 8px"
    wide = f":host{{flex:{flex};min-width:{least};{look}}}"
    narrow = f"@media (max-width:{NARROW}){{:host{{flex:1 1 100%;min-width:0}}}}"
    return pn.Column(part, stylesheets=[wide + narrow])
