"""Below one bit: one layer quantized by BTC-LLM in detail: `panel serve apps/codebook.py [--args MODEL]`."""

import sys

import panel as pn

import workbench as wb
from workbench.widgets.shell.page import build_explorer_page
from workbench.widgets.shell.tabs import TABS

SHOWN = {"Quantize": ("Method", "Codebook", "Error", "Ledger"), "See": ("Weights", "Saliency"), "Decide": ("History",)}


def app(source: str) -> pn.viewable.Viewable:
    """The whole page: BTC-LLM on the bench, and the tabs that look inside it."""
    tabs = {section: {title: TABS[section][title] for title in titles} for section, titles in SHOWN.items()}
    return build_explorer_page(source, recipe=wb.recipe("btc", bits=0.8), tabs=tabs, strips=())


if pn.state.served:
    named = sys.argv[1] if len(sys.argv) > 1 else "builtin"
    app(named).servable(title="workbench · codebook")
