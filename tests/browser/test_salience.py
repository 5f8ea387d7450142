"""Salient channels in a real Chromium: a box and the keyboard mark the same channels in every view."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.visitor import Open, button, field, figure, fill, tab

pytestmark = [pytest.mark.browser, pytest.mark.slow]
CURVE = "channels, most salient first"


def drag(page: Page, axis: str, across: tuple[float, float], down: tuple[float, float]) -> None:
    """Draw a box on the figure with this x axis, from and to shares of its width and height."""
    area = page.locator(".js-plotly-plot").filter(has_text=axis).locator(".nsewdrag").first
    area.scroll_into_view_if_needed()
    box = area.bounding_box()
    assert box is not None
    (left, right), (top, bottom) = across, down
    page.mouse.move(box["x"] + left * box["width"], box["y"] + top * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + right * box["width"], box["y"] + bottom * box["height"], steps=8)
    page.mouse.up()


def test_a_brushed_channel_is_followed(address: str, open_page: Open) -> None:
    page = open_page(address)
    tab(page, "Saliency")
    assert len(figure(page, CURVE)["x"][0]) == 256
    expect(page.get_by_text("Select channels: draw a box around points").first).to_be_visible()

    drag(page, CURVE, (0.001, 0.05), (0.01, 0.9))
    marked = figure(page, CURVE, "e.data[1].x.length > 0")
    assert marked["x"][1] == list(range(1, len(marked["x"][1]) + 1)), "the channels at the curve's beginning"
    expect(field(page, "Marked channels")).to_have_value(re.compile(r"^\d+(, \d+)*$"))
    expect(page.get_by_text(re.compile(r"is written most by .* and read most by"))).to_be_visible()

    fill(page, "Marked channels", "17, 40-41")
    expect(page.get_by_text(re.compile(r"The 3 chosen channels \((17|40|41), "))).to_be_visible()
    tab(page, "Weights")
    expect(field(page, "Marked channels")).to_have_value("17, 40-41")
    button(page, "Ranges").click()
    assert figure(page, "column (input feature)", "e.layout.shapes.length === 3")["shapes"] == 3

    fill(page, "Marked channels", "many")
    expect(page.get_by_text("'many' is not a number")).to_be_visible()
    expect(field(page, "Marked channels")).to_have_value("17, 40-41")
