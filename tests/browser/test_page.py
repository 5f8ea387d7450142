"""The page around the components: address, history, keys, presentation, files to keep, and several visitors at once."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.browser.visitor import (
    DOWN,
    Open,
    button,
    card,
    field,
    figure,
    fill,
    heading,
    read_font_size,
    serious,
    tab,
    unfold,
    wait_until_measured,
)
from workbench.recipe import Recipe

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def kept(page: Page, press: Callable[[], None]) -> str:
    """The content of the file that pressing something saves."""
    with page.expect_download() as download:
        press()
    return Path(download.value.path()).read_text()


def download(page: Page, label: str) -> Locator:
    """What saves a file; Panel draws it as a link."""
    return page.get_by_role("link", name=label).or_(button(page, label)).first


def test_an_address_shows_the_same_to_everybody_and_steps_can_be_walked(address: str, open_page: Open) -> None:
    page = open_page(address)
    field(page, "Layer").select_option(DOWN)
    expect(heading(page)).to_contain_text(DOWN)
    unfold(page, "Settings")
    card(page, "Composed freely").click()
    expect(field(page, "correction")).to_be_visible()
    field(page, "correction").select_option("low-rank")
    fill(page, "rank", 3)
    page.wait_for_url(re.compile(r"rank%22%3A3"))
    button(page, "History").click()
    expect(page.get_by_text("What have I done?")).to_be_visible()
    page.wait_for_url(re.compile("tab=History"))

    other = open_page(page.url)
    expect(heading(other)).to_contain_text(DOWN)
    unfold(other, "Settings")
    expect(field(other, "rank")).to_have_value("3")
    expect(other.get_by_text("What have I done?")).to_be_visible()

    page.locator("body").press("Control+z")
    expect(field(page, "rank")).to_have_value("8")
    page.locator("body").press("Control+Shift+z")
    expect(field(page, "rank")).to_have_value("3")
    saved = json.loads(kept(page, download(page, "Save session").click))
    assert saved["history"]["steps"][-1]["choice"]["recipe"]["correction"] == {"part": "low-rank", "rank": 3, "damping": 0.001}
    unfold(page, "About this recipe")
    recipe = Recipe.from_json(kept(page, download(page, "Export the recipe").click))
    assert recipe.correction.to_dict()["rank"] == 3


def test_a_figure_can_be_kept_and_presented(address: str, open_page: Open) -> None:
    page = open_page(address)
    figure(page, "weight")
    assert kept(page, button(page, "SVG").locator("visible=true").first.click).startswith("<svg")
    with page.expect_download() as download:
        button(page, "PNG").locator("visible=true").first.press("Enter")
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")


BUTTONS = """() => {
    const names = [], walk = root => root.querySelectorAll('*').forEach(e => {
        const own = e.tagName === 'BUTTON' && !e.classList.contains('modebar-btn')  // those are seen under the pointer only
        if (own && e.checkVisibility() && e.offsetWidth) names.push(e.ariaLabel || e.innerText.trim());
        if (e.shadowRoot) walk(e.shadowRoot) });
    walk(document);
    return names;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_presented_page_has_slider_texts_and_map_alone_and_is_used_by_its_keys(
    address: str, open_page: Open, theme: str
) -> None:
    page = open_page(f"{address}?theme={theme}")
    texts = [page.get_by_label(f"{side} text", exact=True) for side in ("original", "quantized")]
    expect(texts[1]).to_be_visible()
    slider = page.get_by_label("Squeeze", exact=True)
    before = read_font_size(texts[0]), button(page, "End").count()
    button(page, "Present").click()
    expect(button(page, "Quantize this layer")).to_be_hidden()
    expect(slider).to_be_focused()
    assert read_font_size(texts[0]) > 1.3 * before[0]
    page.set_viewport_size({"width": 1440, "height": 900})
    cells = page.locator(".nsewdrag").locator("visible=true").first.bounding_box()
    assert cells is not None
    assert cells["y"] + cells["height"] < 900, "all six blocks are on the screen"
    assert before[1] == 0
    for part in (*texts, page.get_by_label("Block 0: its matrices"), page.get_by_text("Which layers have heavy tails?")):
        expect(part).to_be_visible()
    for hidden in ("perplexity", "Which values do the weights take?", "Show as table", "Colour by", "Several layers"):
        expect(page.get_by_text(hidden, exact=True).locator("visible=true")).to_have_count(0)
    drawn = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    assert {name.partition(":")[0] for name in page.evaluate(BUTTONS)} - {"Build the stops"} == drawn | {"End"}
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 1440

    assert serious(page) == []

    slider.evaluate("e => e.blur()")
    page.locator("body").press("ArrowRight")
    expect(slider).to_have_value("1")
    expect(slider).to_be_focused()  # so that its words are read aloud
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_value("2")
    page.keyboard.press("ArrowLeft")
    expect(slider).to_have_value("1")
    expect(
        page.get_by_text(re.compile("Writing with squeeze|There is no model at|tokens? agree|first token")).first
    ).to_be_visible()
    query = page.get_by_label(re.compile("^q_proj:"))
    query.focus()
    page.keyboard.press("ArrowRight")  # which the drawing takes for itself
    expect(page.get_by_label(re.compile("^k_proj:"))).to_be_focused()
    expect(slider).to_have_value("1")
    page.keyboard.press("Escape")
    expect(button(page, "Quantize this layer")).to_be_visible()
    expect(button(page, "Present")).to_be_visible()
    assert read_font_size(texts[0]) == before[0]
    page.locator("body").press("ArrowRight")
    page.wait_for_timeout(300)
    expect(slider).to_have_value("1")


def test_what_a_widget_fails_at_is_told(address: str, open_page: Open) -> None:
    page = open_page(f"{address}?channels=99999")
    expect(page.get_by_text("channels holds 99999")).to_be_visible()
    button(page, "Dismiss").click()
    expect(page.get_by_text("channels holds 99999")).to_be_hidden()


def test_one_visitors_long_job_does_not_hold_up_another_visitors_sliders(address: str, open_page: Open) -> None:
    busy, other = open_page(f"{address}?recipe=btc"), open_page(address)
    for page in (busy, other):
        wait_until_measured(page)
    unfold(busy, "Settings")
    expect(field(busy, "sweeps")).to_be_visible()
    button(busy, "Quantize the whole model").click()
    expect(busy.get_by_text(re.compile(r"Quantizing the whole model: \d+% after"))).to_be_visible()
    button(other, "Quantize the whole model").click()
    expect(other.get_by_text("Quantizing the whole model is waiting for 1 other job.")).to_be_visible()
    fill(other, "bits", 2)
    expect(other.get_by_text(re.compile(r"Preview: .* stored bits"))).to_be_visible()
    assert figure(other, "weight", "e.data.length === 2")["traces"] == ["original", "quantized"]
    for page in (other, busy):
        button(page, "Cancel").click()
        # after the step at hand, which with other browsers beside takes longer than anything else on the page
        expect(page.get_by_text("Cancelled: quantizing the whole model")).to_be_visible(timeout=180_000)


def test_a_visitor_who_is_alone_sees_figures_follow_the_settings(address: str, open_page: Open) -> None:
    page = open_page(address)
    figure(page, "weight", "e.data.length === 2")
    fill(page, "bits", 1)
    expect(page.get_by_text(re.compile(r"Preview: .* stored bits"))).to_be_visible()
    tab(page, "Ledger")
    figure(page, "bits per weight", "e.layout.barmode === 'stack'")


DRAWN = """async () => {
    let count = 0;
    const { width, height } = window.seen._fullLayout;
    window.seen.on("plotly_afterplot", () => count++);
    await Plotly.relayout(window.seen, { width, height });
    const same = count;
    await Plotly.relayout(window.seen, { width: width - 40, height });
    return [same, count - same];
}"""


def test_a_figure_is_drawn_anew_only_where_its_size_has_changed(address: str, open_page: Open) -> None:
    page = open_page(address)
    figure(page, "weight", "e.data.length === 2 && (window.seen = e)")
    assert page.evaluate(DRAWN) == [0, 1]


@pytest.mark.parametrize(
    ("app", "sign"),
    [("compare", "Which model is closest to the original for its bits?"), ("codebook", "Do sign patterns repeat?")],
)
def test_every_app_opens_for_everybody(address: str, open_page: Open, app: str, sign: str) -> None:
    page = open_page(address.replace("explorer", app))
    expect(page.get_by_text(sign)).to_be_visible()
    assert serious(page) == []


def test_an_address_that_there_is_not_is_a_page_with_a_link(address: str, open_page: Open) -> None:
    open_page(address)  # the app has run
    missing = address.replace("explorer", "nothing<b>")
    with pytest.raises(HTTPError, match="404") as answer:
        urlopen(missing)
    page = answer.value.read().decode()
    assert "There is no page at /nothing&lt;b&gt;. <a href='/'>Open the explorer</a>" in page
    assert "404: Not Found" not in page


def test_pictures_fill_half_of_the_first_screen_and_the_page_is_hardly_longer(address: str, open_page: Open) -> None:
    page = open_page(address)
    figure(page, "weight", "e.data.length === 2")
    expect(page.get_by_text("Only the original is shown.")).to_be_visible()
    slider = page.get_by_label("Squeeze", exact=True)
    for place in range(2):  # the original, then also beside a smaller model
        for width, height in ((1920, 1080), (1440, 900)):
            page.set_viewport_size({"width": width, "height": height})
            page.wait_for_timeout(1000)
            assert page.evaluate("document.scrollingElement.scrollHeight") < 1150
            shown = page.evaluate(PICTURES, height)
            assert shown > 0.5 * width * height, f"map and figure, with what is said about them, at {width} pixels"
        if place == 0:
            slider.focus()
            slider.press("End")
            expect(page.locator("mark.fork").first).to_be_visible()
            expect(page.get_by_text("Which layers have the largest output error?")).to_be_visible()


# square pixels of the first screen on the columns of the layer map and of the figure
PICTURES = """height => {
    const all = [], walk = root => root.querySelectorAll('*').forEach(e => {
        if (e.classList.contains('js-plotly-plot') && e.clientWidth > 200) all.push(e); if (e.shadowRoot) walk(e.shadowRoot) });
    walk(document);
    const column = e => { let at = e; while (at && getComputedStyle(at).borderRadius !== '10px')
        at = at.parentElement ?? at.getRootNode().host; return at };
    const boxes = [...new Set(all.map(column))].filter(Boolean).map(e => e.getBoundingClientRect());
    const two = boxes.sort((a, b) => a.left - b.left).slice(0, 2);
    return two.reduce((sum, b) => sum + b.width * Math.max(0, Math.min(b.bottom, height) - Math.max(b.top, 0)), 0);
}"""


def test_doubled_text_neither_scrolls_sideways_nor_hides_a_button(address: str, open_page: Open) -> None:
    """A window of 1440 pixels whose text is zoomed to 200 % is 720 pixels wide."""
    page = open_page(address, 720)
    figure(page, "weight")
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 720
    labels = (
        "Why here?",
        "Compare every token",
        "All stops",
        "Quantize this layer",
        "Quantize the whole model",
        "History",
        "Share",
    )
    boxes = [(label, button(page, label).bounding_box()) for label in labels]
    for label, box in boxes:
        assert box is not None, label
        assert box["x"] >= 0, label
        assert box["x"] + box["width"] <= 720, label
        for other, second in boxes:
            apart = (
                box["x"] + box["width"] <= second["x"] + 1 or second["x"] + second["width"] <= box["x"] + 1
                or box["y"] + box["height"] <= second["y"] + 1 or second["y"] + second["height"] <= box["y"] + 1
            )  # fmt: skip
            assert label == other or apart, (label, other)
