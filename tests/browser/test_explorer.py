"""The explorer as a visitor uses it, in a real Chromium on a really served page."""

import re
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import ROOT, Heard, served
from tests.browser.visitor import (
    DOWN,
    QUERY,
    TITLES,
    Open,
    button,
    card,
    field,
    figure,
    fill,
    heading,
    quantize_one,
    read_font_size,
    read_style,
    serious,
    tab,
    unfold,
    wait_until_measured,
)
from tests.servers import free_port, running

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def test_choosing_a_layer_and_a_recipe(address: str, open_page: Open) -> None:
    page = open_page(address)
    expect(heading(page)).to_contain_text(QUERY)
    names = field(page, "Layer").locator("option").all_inner_texts()
    assert len(names) == 6 * 7, "six blocks of seven matrices"
    assert {QUERY, DOWN} <= set(names)

    field(page, "Layer").select_option(DOWN)
    expect(heading(page)).to_contain_text("block 1 · down_proj 256 × 768")
    assert DOWN in page.url, "the address names the layer"

    expect(field(page, "bits")).to_have_value("4")
    unfold(page, "Settings")
    card(page, "BTC-LLM").click()
    expect(field(page, "sweeps")).to_have_value("15")
    expect(field(page, "bits")).to_have_value("0.8")
    expect(field(page, "clip")).to_have_count(0)

    button(page, "Undo").click()
    expect(card(page, "Round to nearest")).to_have_attribute("aria-pressed", "true")
    expect(field(page, "clip")).to_be_visible()
    button(page, "Undo").click()
    expect(heading(page)).to_contain_text(QUERY)
    expect(button(page, "Undo")).to_be_disabled()
    button(page, "Redo").click()
    button(page, "Redo").click()
    expect(heading(page)).to_contain_text(DOWN)
    expect(card(page, "BTC-LLM")).to_have_attribute("aria-pressed", "true")

    map_ = page.locator(".nsewdrag").locator("visible=true").first
    map_.hover()
    map_.click()
    expect(heading(page)).not_to_contain_text(DOWN)


def test_a_bad_setting_is_explained_where_it_was_made(address: str, open_page: Open) -> None:
    page = open_page(address)
    unfold(page, "Settings")
    fill(page, "group", 7)
    expect(page.get_by_text("group size 7 does not divide 256 columns")).to_be_visible()
    expect(button(page, "Quantize this layer")).to_be_disabled()
    expect(button(page, "Quantize the whole model")).to_be_disabled()
    fill(page, "group", 64)
    expect(page.get_by_text("group size 7")).to_be_hidden()
    expect(button(page, "Quantize this layer")).to_be_enabled()


@pytest.mark.parametrize("width", [1440, 900])
def test_tooltips_stay_inside_the_window(address: str, open_page: Open, width: int) -> None:
    """Also those of the controls at its right edge, and none covers its own control."""
    page = open_page(address, width)
    figure(page, "weight")
    tooltip = page.locator("body > .bk-Tooltip")
    for control in (
        button(page, "Dark page"),
        button(page, "Quantize this layer"),
        page.locator(".bk-description").locator("visible=true").last,
    ):
        for _ in range(10):  # a page that is still being drawn moves from under the pointer
            page.mouse.move(5, 5)
            control.hover()
            page.wait_for_timeout(1000)
            own, over = tooltip.bounding_box() if tooltip.count() else None, control.bounding_box()
            if own is not None and over is not None:
                break
        assert own is not None
        assert over is not None
        assert own["x"] >= 0
        assert own["x"] + own["width"] <= width
        assert (
            own["y"] > over["y"] + over["height"] or own["y"] + own["height"] < over["y"] or own["x"] > over["x"] + over["width"]
        )
        page.mouse.move(5, 5)
        expect(tooltip).to_be_hidden()


def test_quantizing_a_layer_shows_what_it_did(address: str, open_page: Open) -> None:
    page = open_page(address)
    figure(page, "weight")
    unfold(page, "Settings")
    fill(page, "group", 64)
    quantize_one(page, 2)
    # two code bits, 16 bits of scale and 2 bits of zero point for each 64 weights
    expect(page.get_by_text("2.28").first).to_be_visible()
    histogram = figure(page, "weight", "e.data.length === 2")
    assert histogram["traces"] == ["original", "quantized"]
    assert histogram["shapes"] >= 4, "a line for each of the four levels"

    button(page, "Picture").click()
    button(page, "difference").click()
    expect(page.get_by_text("Where did quantization change the weights?")).to_be_visible()

    tab(page, "Error")
    expect(page.get_by_text("Which layers have the largest error?")).to_be_visible()
    expect(page.get_by_text("1 result for this layer")).to_be_visible()
    expect(page.get_by_text("block 0 · q_proj has output error")).to_be_visible()

    tab(page, "Ledger")
    ledger = figure(page, "bits per weight", "e.layout.barmode === 'stack'")
    assert sum(parts[0] for parts in ledger["x"][:-1]) == pytest.approx(2 + 18 / 64)
    assert ledger["x"][-1] == [2]
    expect(page.get_by_text("This layer stores 2.28 bits per weight (2.00 nominal)")).to_be_visible()
    figure(page, "stored bits per weight")  # the gallery's, which comes with its first trials
    button(page, "Show as table").nth(-2).click()  # the last one is the gallery's
    expect(page.locator(".tabulator-cell").filter(has_text="uniform codes")).to_be_visible()
    button(page, "Show as table").nth(-2).click()  # the last one is the gallery's
    expect(page.locator(".tabulator-cell").filter(has_text="uniform codes")).to_have_count(0)


def test_the_method_tab_shows_what_the_recipe_has(address: str, open_page: Open) -> None:
    page = open_page(f"{address}?recipe=btc-paper")
    tab(page, "Method")
    figure(page, "rank of the pattern")
    button(page, "Quantize this layer").click()
    expect(page.get_by_text(re.compile(r"of the signs are flipped at 0\.80 bits per sign"))).to_be_visible()

    button(page, "Groups").focus()
    page.keyboard.press("Enter")
    figure(page, "column (input feature, in the coded basis)")
    expect(page.get_by_text(re.compile("magnitude 4 of 4; the map of groups costs 2.00 bits"))).to_be_visible()
    figure(page, "stored bits per weight")  # the gallery's, which comes with its first trials
    button(page, "Show as table").nth(-2).click()  # the last one is the gallery's
    expect(page.locator(".tabulator-cell").filter(has_text="magnitude 4 of 4")).to_be_visible()

    button(page, "Sweeps").click()
    figure(page, "sweep")
    expect(page.get_by_text("How do the scale and mean of a row converge?")).to_be_visible()
    button(page, "Transform").click()
    expect(page.get_by_text("This recipe does not learn a transform: try")).to_be_visible()


def test_a_run_over_the_whole_model_can_be_cancelled(address: str, open_page: Open) -> None:
    page = open_page(address)
    wait_until_measured(page)
    card(page, "BTC-LLM").click()
    expect(field(page, "bits")).to_have_value("0.8")
    button(page, "Quantize the whole model").click()
    expect(page.get_by_text(re.compile(r"Quantizing the whole model: \d+% after"))).to_be_visible()
    expect(button(page, "Quantize the whole model")).to_be_disabled()
    button(page, "Cancel").click()
    expect(page.get_by_text("Cancelled: quantizing the whole model")).to_be_visible()
    expect(button(page, "Quantize the whole model")).to_be_enabled()
    expect(button(page, "Cancel")).to_be_hidden()


def test_both_models_write_side_by_side(address: str, open_page: Open) -> None:
    page = open_page(address)
    unfold(page, "Settings")
    fill(page, "group", 64)
    tab(page, "Text")
    fill(page, "Prompt", "The small dog")
    fill(page, "Tokens", 12)
    button(page, "Write").click()
    expect(page.get_by_text("nothing is quantized yet").first).to_be_visible()
    quantize_one(page, 1)
    button(page, "Write").click()
    expect(page.get_by_text(re.compile("first token|first \\d+ tokens agree|agrees"))).to_be_visible()
    for side in ("original", "quantized"):
        text = page.get_by_label(f"{side} text", exact=True).last  # the first is beside the slider
        expect(text).to_contain_text("The small dog")
        expect(text.locator("mark.fork")).to_be_visible()

    tokens = page.get_by_label("original text", exact=True).last.get_by_role("button")
    tokens.nth(2).click()
    expect(page.get_by_text("At token 3 of the original text")).to_be_visible()
    expect(tokens.nth(2)).to_be_focused()  # also after the text was drawn anew
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.get_by_text("At token 4 of the original text")).to_be_visible()
    expect(tokens.nth(3)).to_have_attribute("aria-pressed", "true")
    expect(field(page, "Token")).to_have_value("4")


def test_a_change_is_seen_in_the_predictions(address: str, open_page: Open) -> None:
    page = open_page(address)
    quantize_one(page, bits=2)
    tab(page, "What-if")
    expect(page.get_by_text("nats per token, median")).to_be_visible()
    button(page, "Measure the error budget").click()
    expect(page.get_by_text("The one quantized layer")).to_be_visible()
    tab(page, "Text")
    button(page, "Find the fork").click()
    expect(page.get_by_text(re.compile("They do not diverge: both models write the same|: the original writes"))).to_be_visible()


def test_the_dark_page_keeps_what_was_chosen(address: str, open_page: Open) -> None:
    page = open_page(address)
    expect(heading(page)).to_be_visible()
    light = read_style(heading(page), "color")
    field(page, "Layer").select_option(DOWN)
    expect(heading(page)).to_contain_text(DOWN)
    quantize_one(page, 3)
    page.wait_for_url(re.compile("bits%3D3"))
    chip = page.get_by_role("radio", name=re.compile("^original")).first
    expect(chip).not_to_be_checked()
    button(page, "Dark page").click()
    page.wait_for_url(re.compile("theme=dark"))
    expect(button(page, "Light page")).to_be_visible()
    expect(heading(page)).to_contain_text(DOWN)
    expect(field(page, "bits")).to_have_value("3")
    expect(chip).not_to_be_checked()  # what was quantized is still there, and shown
    page.wait_for_url(lambda url: "session=" not in url)
    assert read_style(heading(page), "color") != light


@pytest.mark.parametrize("width", [900, 1440])
def test_nothing_sticks_out(address: str, open_page: Open, width: int) -> None:
    page = open_page(address, width=width)
    figure(page, "weight")
    for name in TITLES:
        tab(page, name)
        page.wait_for_timeout(300)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width, name


def test_enlarged_type_takes_no_sideways_scrolling(address: str, open_page: Open) -> None:
    """Type twice as large, as some readers set it in their browser."""
    page = open_page(address)
    figure(page, "weight")
    page.evaluate("document.documentElement.style.fontSize = '200%'")
    for width in (1440, 900, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(1000)
        assert page.evaluate("document.scrollingElement.scrollWidth") <= width, width
    assert read_font_size(button(page, "Present")) > 20


# only colours differ on a dark page
RULES = {"light": (), "dark": ("color-contrast",)}


@pytest.mark.parametrize("theme", RULES)
def test_nothing_is_in_a_blind_visitors_way(address: str, open_page: Open, theme: str) -> None:
    page = open_page(f"{address}?theme={theme}")
    figure(page, "weight")
    quantize_one(page, 1)
    expect(page.get_by_label("Squeeze", exact=True)).to_have_attribute("aria-valuetext", "16.00 stored bits")
    for name in TITLES:
        tab(page, name)
        page.wait_for_timeout(1000)
        assert serious(page, *RULES[theme]) == [], name


# tab, fields and their values, button, what is said when its job has ended
RESULTS = {
    "Text": ("Text", {"Prompt": "The small dog", "Tokens": 12}, "Write", "Done: writing"),
    "fork": ("Text", {}, "Find the fork", "Done: looking for the fork"),
    "What-if": ("What-if", {}, "Measure the error budget", "Done: error budget"),
    "KV cache": ("KV cache", {"Tokens": 64, "Block": 16}, "Measure", "Done: measuring caches"),
    "Calibration": ("Calibration", {"Tokens per half": 2000}, "Read the texts", "Done: adding up the mixture"),
    "documents": ("Calibration", {}, "Rank documents", "Done: ranking"),
    "Budget": ("Budget", {}, "Measure the options", "Done: measuring options"),
    "Card": ("Card", {"Tokens": 64}, "Make the card", "Done: making the card"),
}


@pytest.mark.parametrize("theme", RULES)
def test_results_are_not_in_a_blind_visitors_way(tiny: str, open_page: Open, theme: str) -> None:
    page = open_page(f"{tiny}?theme={theme}")
    quantize_one(page, 1)
    for name, (title, fields, press, said) in RESULTS.items():
        tab(page, title)
        for label, value in fields.items():
            fill(page, label, value)
        button(page, press).click()
        expect(page.get_by_text(re.compile(f"^{said}"))).to_be_visible()
        page.wait_for_timeout(500)
        assert serious(page, *RULES[theme]) == [], name


def test_tabs_are_walked_by_keyboard(tiny: str, open_page: Open) -> None:
    page = open_page(f"{tiny}?tab=Ledger")
    front = page.locator("[role=tab][aria-selected=true]")
    expect(front).to_have_text(["Quantize", "Ledger"])
    front.last.press("ArrowLeft")
    expect(front).to_have_text(["Quantize", "Error"])
    expect(front.last).to_be_focused()
    page.wait_for_url(re.compile("tab=Error"))
    front.first.press("End")
    expect(front).to_have_text(["Decide", "Budget"])
    front.first.press("ArrowLeft")
    front.first.press("ArrowLeft")
    expect(front).to_have_text(["Quantize", "Error"])


def test_a_model_that_cannot_be_opened_is_one_sentence(open_page: Open, tmp_path: Path) -> None:
    with served(tmp_path / "log", "--args", "/no/such") as address:
        page = open_page(address)
        expect(page.get_by_text("/no/such").last).to_be_visible()
        expect(page.get_by_text("Traceback")).to_have_count(0)
        expect(page.get_by_role("button", name="Quantize this layer")).to_have_count(0)
        page.close()


def test_the_command_line_opens_the_model_it_names(open_page: Open, tiny_models: dict[str, Path], tmp_path: Path) -> None:
    port, model = free_port(), str(tiny_models["qwen3"])
    code = "from workbench.cli import main; main()"
    words = [sys.executable, "-c", code, "explore", model, "--no-browser", "--port", str(port)]
    with running(words, f"http://127.0.0.1:{port}/explorer", tmp_path / "log", folder=ROOT):
        page = open_page(f"http://127.0.0.1:{port}/explorer")
        expect(heading(page)).to_contain_text("64 × 64")
        expect(page.get_by_text(f"· {model}", exact=True)).to_be_visible()
        assert field(page, "Layer").locator("option").count() == 2 * 7, "two blocks of seven matrices"
        page.close()


def test_what_goes_wrong_is_heard(open_page: Open, heard: Heard) -> None:
    page = open_page("about:blank")
    page.evaluate("console.error('planted'); setTimeout(() => { throw new Error('thrown') })")
    page.evaluate("fetch('http://elsewhere.invalid/script.js').catch(() => 0)")
    page.wait_for_timeout(200)
    assert "planted" in heard.errors
    assert "thrown" in heard.errors
    assert heard.foreign == ["http://elsewhere.invalid/script.js"]
    heard.errors.clear()
    heard.foreign.clear()
