"""The gallery of recipes in a real Chromium: a card or a dot brings a method to the bench, by mouse and by keyboard."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.visitor import Open, button, card, field, figure, serious

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def bench(page: Page) -> Locator:
    """The line that says what is on the bench."""
    return page.get_by_role("heading", name="Bench:")


def test_a_card_and_a_dot_bring_a_method_to_the_bench(tiny: str, open_page: Open) -> None:
    page = open_page(tiny)
    expect(bench(page)).to_have_text(re.compile(r"Round to nearest\s+bits 4"))
    card(page, "GPTVQ").click()
    expect(bench(page)).to_have_text(re.compile(r"GPTVQ\s+bits 0\.8"))
    expect(field(page, "bits")).to_have_value("0.8")
    expect(card(page, "GPTVQ")).to_have_attribute("aria-pressed", "true")
    expect(card(page, "Round to nearest")).to_have_attribute("aria-pressed", "false")
    button(page, "Undo").click()
    expect(bench(page)).to_have_text(re.compile(r"Round to nearest\s+bits 4"))

    # the first trials come while others are at work
    expect(card(page, "Ternary")).to_contain_text("output error")
    dots = figure(page, "stored bits per weight", "e.data.some(t => t.customdata.includes('rtn:bits=2'))")
    assert "Ternary" in dots["traces"]
    page.get_by_text("recipes tried on this layer").wait_for(state="hidden")
    point = page.evaluate(
        """() => {
            const all = [], walk = root => root.querySelectorAll('*').forEach(e => {
                if (e.classList.contains('js-plotly-plot')) all.push(e); if (e.shadowRoot) walk(e.shadowRoot) });
            walk(document);
            const e = all.find(e => e.layout?.xaxis?.title?.text === 'stored bits per weight');
            e.scrollIntoView({block: 'center'});
            const trace = e.data.find(t => t.customdata.includes('rtn:bits=3')), at = trace.customdata.indexOf('rtn:bits=3');
            const box = e.getBoundingClientRect(), {xaxis, yaxis} = e._fullLayout;
            return [box.left + xaxis._offset + xaxis.d2p(trace.x[at]), box.top + yaxis._offset + yaxis.d2p(trace.y[at])];
        }"""
    )
    page.mouse.move(*point)
    page.mouse.click(*point)
    expect(bench(page)).to_have_text(re.compile(r"Round to nearest\s+bits 3"))
    expect(field(page, "bits")).to_have_value("3")


def test_cards_are_walked_by_keyboard(tiny: str, open_page: Open) -> None:
    page = open_page(tiny)
    card(page, "Round to nearest").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    expect(card(page, "GPTQ")).to_be_focused()
    page.keyboard.press("Enter")
    expect(bench(page)).to_contain_text("GPTQ")
    expect(card(page, "GPTQ")).to_be_focused()
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    expect(bench(page)).to_contain_text("composed freely")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_in_nobodys_way(tiny: str, open_page: Open, theme: str) -> None:
    page = open_page(f"{tiny}?theme={theme}", width=390)
    expect(card(page, "Ternary")).to_contain_text("output error")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
    assert serious(page) == []
