"""Layers marked by a box and by keyboard on the map, painted and quantized; and two runs beside each other."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.visitor import Open, button, field, figure, fill, heading, serious, unfold

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def draw_box(page: Page, left: float, top: float, right: float, bottom: float) -> None:
    """Draw a box over the layer map, by shares of its width and height."""
    box = page.locator(".nsewdrag").locator("visible=true").first.bounding_box()
    assert box is not None
    corners = [(box["x"] + box["width"] * x, box["y"] + box["height"] * y) for x, y in ((left, top), (right, bottom))]
    page.mouse.move(*corners[0])
    page.mouse.down()
    page.mouse.move(*corners[1], steps=5)
    page.mouse.up()


def test_layers_in_a_box_are_painted_and_quantized_as_a_run(tiny: str, open_page: Open) -> None:
    page = open_page(tiny)
    figure(page, "weight")
    unfold(page, "Several layers")
    expect(field(page, "Marked layers")).to_be_visible()
    draw_box(page, 0.6, 0.05, 0.97, 0.45)
    expect(field(page, "Marked layers")).to_have_value(re.compile(r"^(model\.layers\.0\.mlp\.\w+(, )?){3}$"))
    fill(page, "Paint with", "rtn:bits=2,group=32")
    button(page, "Paint").click()
    expect(page.get_by_text("Plan: rtn bits=2 group=32 on 3 layers.")).to_be_visible()
    fill(page, "Marked layers", "*.1.self_attn.*")
    expect(page.get_by_text(re.compile("^4 layers are marked"))).to_be_visible()
    assert serious(page) == []
    button(page, "Quantize the painted layers").click()
    expect(page.get_by_role("radio", name=re.compile(r"^rtn bits=2 group=32, 3 of 14 layers")).first).to_be_checked()

    # a matrix of the drawing selects its layer, by mouse and by keyboard
    drawing = page.get_by_role("group", name="MLP").get_by_role("button")
    drawing.last.click()
    expect(heading(page)).to_contain_text("block 0 · down_proj")
    expect(drawing.last).to_be_focused()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")
    expect(heading(page)).to_contain_text("block 0 · up_proj")
    expect(drawing.nth(1)).to_have_attribute("aria-pressed", "true")


def test_a_second_chip_is_what_everything_is_compared_with(tiny: str, open_page: Open) -> None:
    page = open_page(tiny)
    shown = page.get_by_role("radiogroup", name="Run", exact=True)
    for bits in (4, 2):
        fill(page, "bits", bits)
        expect(page.get_by_role("heading", name=re.compile(f"Bench: Round to nearest bits {bits}"))).to_be_visible()
        button(page, "Quantize the whole model").click()
        expect(shown.get_by_role("radio", name=re.compile(rf"^rtn.* · {bits}\."))).to_be_checked()
    beside = page.get_by_role("radiogroup", name="Compared with")
    beside.get_by_role("radio", name=re.compile("^original")).focus()
    page.keyboard.press("ArrowRight")
    expect(beside.get_by_role("radio", name=re.compile("^rtn · 4"))).to_be_checked()
    expect(beside.get_by_role("radio", name=re.compile("^rtn · 4"))).to_be_focused()
    expect(page.get_by_text("Which layers lose more than in the other run?")).to_be_visible()
    expect(page.get_by_text(re.compile(r"Its perplexity is .* times rtn's \("))).to_be_visible()
    expect(page.get_by_role("heading", name="rtn", exact=True)).to_be_visible()
    assert figure(page, "weight", "e.data.length === 3")["traces"] == ["original", "quantized", "rtn"]
    assert serious(page) == []
