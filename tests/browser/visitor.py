"""What a visitor does on the page and sees of it, for all browser tests."""

import re
from collections.abc import Callable
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

from workbench.widgets.shell.tabs import TABS

Open = Callable[..., Page]
PATIENCE = 60_000  # milliseconds that a slow machine may take for one step
expect.set_options(timeout=PATIENCE)

TITLES = [title for own in TABS.values() for title in own]
QUERY, DOWN = "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"
# what axe finds in the libraries: Bokeh's arrows beside a number have no name (the arrow keys do the same in the field), and
# Tabulator's grid holds its pager
KNOWN = {"button-name": ("bk-spin-btn",), "aria-required-children": ("pnx-tabulator",)}


def heading(page: Page) -> Locator:
    """The line that names the selected layer."""
    return page.get_by_role("heading", level=1)


def button(page: Page, label: str) -> Locator:
    return page.get_by_role("button", name=label, exact=True)


def field(page: Page, label: str) -> Locator:
    """One input of a form, by its label."""
    return page.get_by_label(label, exact=True)


def fill(page: Page, label: str, value: object) -> None:
    """Type a value and leave the field."""
    field(page, label).fill(str(value))
    field(page, label).press("Tab")


def card(page: Page, title: str) -> Locator:
    """One method of the gallery."""
    return page.get_by_role("toolbar", name="Recipes").get_by_role("button", name=title, exact=True)


def wait_until_measured(page: Page) -> None:
    """Wait for the figures of the run that is shown: until then measuring it has a Cancel of its own."""
    expect(page.get_by_text("speed on this machine")).to_be_visible()
    expect(button(page, "Cancel")).to_have_count(0)


def unfold(page: Page, title: str) -> None:
    """Open what is folded away under a title."""
    page.locator(".card-header").filter(has_text=title).first.click()


def tab(page: Page, title: str) -> None:
    """Bring a tab to the front, by way of its section."""
    section = next(section for section, own in TABS.items() if title in own)
    page.get_by_role("tab", name=section, exact=True).click()
    page.get_by_role("tab", name=title, exact=True).click()
    expect(page.get_by_role("tab", name=title, exact=True)).to_have_attribute("aria-selected", "true")


def figure(page: Page, axis: str, ready: str = "true") -> dict[str, Any]:
    """The figure whose x axis is called `axis`, once the JavaScript condition `ready` on `e` holds: traces and shapes."""
    find = f"""() => {{
        const all = [], walk = root => root.querySelectorAll('*').forEach(e => {{
            if (e.classList.contains('js-plotly-plot')) all.push(e); if (e.shadowRoot) walk(e.shadowRoot) }});
        walk(document);
        const e = all.find(e => e.layout?.xaxis?.title?.text === '{axis}');
        return e && ({ready}) && {{ traces: e.data.map(t => t.name), shapes: (e.layout.shapes || []).length,
                                    x: e.data.map(t => Array.from(t.x || [])) }};
    }}"""
    return page.wait_for_function(find).json_value()


def serious(page: Page, *rules: str) -> list[tuple[str, str]]:
    """What would stop a visitor who cannot see: broken rules of axe, with the place; looked at again once all is drawn.

    With `rules` only those are tried. Without, all but two that load every style sheet and sound again at each look: the page
    has no sound, and a style sheet that turns it with the device would be seen in the sources.
    """
    broken = broken_rules(page, *rules)
    if broken:
        page.wait_for_timeout(5000)
        broken = broken_rules(page, *rules)
    return broken


def broken_rules(page: Page, *rules: str) -> list[tuple[str, str]]:
    """The same at this moment; a card that is still being drawn has no name yet."""
    tried: dict[str, Any] = {"runOnly": list(rules)} if rules else {}
    found = Axe().run(page, options={"resultTypes": ["violations"], "preload": False, **tried}).response["violations"]
    return [
        (rule["id"], node["html"])
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
        if not any(part in node["html"] for part in KNOWN.get(rule["id"], ()))
    ]


def read_style(element: Locator, name: str) -> str:
    """The computed value of a CSS property, of the element that is on the page: one that was replaced meanwhile has none."""
    while not (value := element.evaluate("(e, name) => getComputedStyle(e).getPropertyValue(name)", name)):
        element.page.wait_for_timeout(100)
    return str(value)


def read_font_size(element: Locator) -> float:
    """Of its text, in pixels."""
    return float(read_style(element, "font-size").removesuffix("px"))


def quantize_one(page: Page, bits: int) -> None:
    """Quantize the selected layer with round to nearest and wait for the outcome."""
    fill(page, "bits", bits)
    button(page, "Quantize this layer").click()
    expect(page.get_by_text(re.compile(r"Done: quantizing this layer"))).to_be_visible()


def rgb(colour: str) -> str:
    """A hexadecimal colour as a browser tells it."""
    return f"rgb({', '.join(str(int(colour[at : at + 2], 16)) for at in (1, 3, 5))})"
