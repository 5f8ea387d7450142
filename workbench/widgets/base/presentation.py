"""Presentation mode: larger type in the figures of the pages that are being presented."""

from typing import Any
from weakref import WeakSet

import panel as pn

LARGER = 1.6  # of type; figures are as high as they are, so that six blocks fit a screen of 900 pixels

_presented: WeakSet[Any] = WeakSet()  # documents


def present(on: bool) -> None:
    """Whether the page at hand is presented; its figures are drawn accordingly from now on."""
    if pn.state.curdoc is not None:
        (_presented.add if on else _presented.discard)(pn.state.curdoc)


def is_presented() -> bool:
    """Whether the page at hand is being presented."""
    return pn.state.curdoc is not None and pn.state.curdoc in _presented


def enlarge(plot: dict[str, Any]) -> dict[str, Any]:
    """A plotly figure, with larger type where the page at hand is presented."""
    return enlarge_fonts(plot) if is_presented() else plot


def enlarge_fonts(tree: Any) -> Any:
    """A copy of a plotly figure, or of a part of it, with every font larger and colour bars as much thicker; data stay."""
    if isinstance(tree, list):
        return [enlarge_fonts(value) for value in tree] if tree and isinstance(tree[0], dict) else tree
    if not isinstance(tree, dict):
        return tree
    return {name: _enlarge_entry(name, value) for name, value in tree.items()}


def _enlarge_entry(name: str, value: Any) -> Any:
    """One entry of a figure, `LARGER` times as large if it is a font or a colour bar."""
    if not isinstance(value, dict):
        return enlarge_fonts(value)
    size = "size" if name.endswith("font") else "thickness" if name == "colorbar" else None
    grown = {size: round(LARGER * value[size])} if size in value else {}
    return enlarge_fonts(value) | grown
