"""The squeeze slider, the comparison and the scrubber in a real Chromium, on a tiny model whose stops take seconds."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.visitor import Open, button, card, tab

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def step_on(page: Page, times: int = 1) -> None:
    """Move the squeeze slider by keyboard."""
    page.get_by_label("Squeeze", exact=True).focus()
    for _ in range(times):
        page.keyboard.press("ArrowRight")


def test_stops_are_built_moved_over_by_keyboard_and_taken_into_the_views(tiny: str, open_page: Open) -> None:
    page = open_page(tiny)
    expect(page.get_by_text("Only the original is shown.")).to_be_visible()
    step_on(page)
    expect(page.get_by_text("There is no model at 8 bits yet: press Build the stops.").first).to_be_visible()
    expect(page.get_by_label("quantized text", exact=True)).to_have_count(0)  # none of another model's
    button(page, "Build the stops").click()
    expect(button(page, "Build the stops")).to_be_hidden(timeout=300_000)
    expect(page.get_by_role("heading", name=re.compile(r"8\.\d\d stored bits"))).to_be_visible()
    step_on(page, 8)
    expect(page.get_by_text(re.compile(r"^0\.\d\d nominal"))).to_be_visible()
    expect(page.locator("mark.fork").first).to_be_visible()

    # a reload and another visitor find what was built
    second = open_page(tiny)
    expect(second.get_by_text("32.00 stored bits").first).to_be_visible()
    expect(button(second, "Build the stops")).to_be_hidden()

    # the original can be shown again, in figures and texts
    page.get_by_role("radio", name=re.compile(r"^original · 32\.00$")).first.click()
    expect(page.get_by_text("stored as float32")).to_be_visible()
    expect(page.get_by_text("Only the original is shown.")).to_be_visible()
    step_on(page)
    page.keyboard.press("ArrowLeft")

    button(page, "Compare every token").click()
    expect(page.get_by_role("tab", name="Text", exact=True)).to_have_attribute("aria-selected", "true")
    expect(card(page, "QTIP")).to_have_attribute("aria-pressed", "true")
    button(page, "Write").click()
    expect(page.get_by_text(re.compile("On this machine the quantized model writes"))).to_be_visible()
    expect(page.get_by_text("What did each model predict here?")).to_be_visible()


def test_two_results_are_pinned_and_one_is_stepped_through(tiny: str, open_page: Open) -> None:
    page = open_page(tiny)
    for bits in (2, 4):
        page.get_by_label("bits", exact=True).fill(str(bits))
        page.get_by_label("bits", exact=True).press("Tab")
        button(page, "Quantize this layer").click()
        tab(page, "Pinned")
        expect(button(page, "Pin this result")).to_be_enabled()
        button(page, "Pin this result").click()
        expect(page.get_by_label("Pinned", exact=True).locator("option")).to_have_count(1 if bits == 2 else 2)
    expect(page.get_by_text(re.compile("2 results pinned, all for one layer"))).to_be_visible()
    button(page, "Unpin").click()
    expect(page.get_by_text(re.compile("1 result pinned"))).to_be_visible()

    tab(page, "Method")
    button(page, "Step by step").click()
    expect(page.get_by_text("each weight by the nearest value")).to_be_visible()
    button(page, "Last").click()
    expect(page.get_by_text("All columns are coded").first).to_be_visible()
