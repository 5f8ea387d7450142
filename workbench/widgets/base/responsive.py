"""Responsive columns: side by side on wide pages, below each other on narrow ones."""

from typing import Any

import panel as pn

from workbench.widgets.base.component import choose_theme

# how wide the columns of the page are: pictures take what there is beyond the form; on a narrow page the layers lie above the
# figures and the bench below them
WIDTHS = {"layers": ("2 1 300px", "250px"), "centre": ("5 1 520px", "320px"), "bench": ("0 1 275px", "250px")}
WIDTHS |= {"strip": ("1 1 320px", "250px"), "wide strip": ("12 1 560px", "250px")}
NARROW, WIDE = "1000px", "1001px"
# columns that make a wide page no longer: they scroll inside, and are at least this high
SCROLLED = {"bench": "620px"}


def build_responsive_column(part: Any, name: str) -> pn.Column:
    """A column of the page that grows, and folds on a narrow page."""
    colours, (flex, least) = choose_theme(), WIDTHS[name]
    look = f"background:{colours.surface};border:1px solid {colours.border};border-radius:10px;padding:6px 8px"
    wide = f":host{{flex:{flex};min-width:{least};{look}}}"
    narrow = f"@media (max-width:{NARROW}){{:host{{flex:1 1 100%;min-width:0}}}}"
    if name in SCROLLED:
        wide += f":host{{position:relative;align-self:stretch!important;height:auto!important;min-height:{SCROLLED[name]}}}"
        inside = f"@media (min-width:{WIDE}){{:host{{position:absolute!important;inset:6px 8px;overflow-y:auto}}}}"
        narrow += f"@media (max-width:{NARROW}){{:host{{min-height:0}}}}"
        part = pn.Column(part, stylesheets=[inside], sizing_mode="stretch_width")
    return pn.Column(part, stylesheets=[wide + narrow])
