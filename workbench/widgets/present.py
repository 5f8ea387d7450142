"""The page before a room: figures with larger type, for the pages that are presented now."""

from copy import deepcopy
from typing import Any
from weakref import WeakSet

import panel as pn

LARGER = 1.4

_presented: WeakSet[Any] = WeakSet()  # documents


def present(on: bool) -> None:
    """Whether the page at hand is presented; its figures are drawn accordingly from now on."""
    if pn.state.curdoc is not None:
        (_presented.add if on else _presented.discard)(pn.state.curdoc)


def sized(plot: dict[str, Any]) -> dict[str, Any]:
    """A plotly figure with larger type where the page at hand is presented."""
    if pn.state.curdoc is None or pn.state.curdoc not in _presented:
        return plot
    layout = deepcopy(plot.get("layout", {}))
    for font in fonts(layout):
        font["size"] = round(LARGER * font["size"])
    return {**plot, "layout": layout}


def fonts(tree: Any) -> list[dict[str, Any]]:
    """Every font with a size below a layout."""
    if isinstance(tree, list):
        return [font for value in tree for font in fonts(value)]
    if not isinstance(tree, dict):
        return []
    own = [value for name, value in tree.items() if name.endswith("font") and isinstance(value, dict) and "size" in value]
    return own + [font for value in tree.values() for font in fonts(value)]
