"""A quant card in a real Chromium: saved from the page, and opened from disk in both modes, with nothing asked of the network."""

import re
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

import workbench as wb
from tests.browser.conftest import Heard
from tests.browser.visitor import PATIENCE, Open, button, fill, rgb
from workbench.models import ModelHandle
from workbench.views.decisions.quant_card import Card
from workbench.views.theme import DARK, LIGHT

pytestmark = [pytest.mark.browser, pytest.mark.slow]
FIGURES = ["plot-ledger", "plot-errors", "plot-perplexity"]


@pytest.fixture(scope="module")
def saved(builtin: ModelHandle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    quantized = wb.quantize_model(builtin, wb.recipe("rtn", bits=3, group=64), layers="*.0.mlp.*")
    return wb.card(quantized, builtin, tokens=64).save(tmp_path_factory.mktemp("card") / "card.html")


def test_a_card_opens_offline(chromium: Browser, saved: Path) -> None:
    heard = Heard()
    page = chromium.new_page(color_scheme="light")
    heard.listen(page)
    try:
        page.goto(saved.as_uri(), timeout=PATIENCE)
        for name in FIGURES:
            page.wait_for_selector(f"#{name} svg.main-svg", timeout=PATIENCE)
        assert heard.errors == []
        assert heard.foreign == [saved.as_uri()]  # the file itself
        colour = "() => getComputedStyle(document.body).backgroundColor"
        bar = "() => document.querySelector('#plot-perplexity .bars path').style.fill"
        light = page.evaluate(colour), page.evaluate(bar)
        found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa"]})
        assert [problem["id"] for problem in found.response["violations"]] == []
        page.emulate_media(color_scheme="dark")
        page.wait_for_function(f"before => ({bar})() !== before", arg=light[1], timeout=PATIENCE)
        dark = page.evaluate(colour), page.evaluate(bar)
        assert [light, dark] == [tuple(map(rgb, (mode.page, mode.original))) for mode in (LIGHT, DARK)]
    finally:
        page.close()


def test_a_card_made_on_the_page_is_saved_whole(tiny: str, open_page: Open, heard: Heard, tmp_path: Path) -> None:
    page = open_page(f"{tiny}?tab=Card")
    button(page, "Quantize this layer").click()
    expect(page.get_by_text(re.compile("press Make the card"))).to_be_visible()
    fill(page, "Tokens", 64)
    button(page, "Make the card").click()
    expect(button(page, "Download card.html")).to_be_enabled()
    for kind in ("json", "html"):
        with page.expect_download() as download:
            button(page, f"Download card.{kind}").press("Enter")
        assert download.value.suggested_filename == f"card.{kind}"
        download.value.save_as(tmp_path / f"card.{kind}")
    assert (tmp_path / "card.html").stat().st_size > 4_000_000, "plotly is inside"
    assert Card.read(tmp_path / "card.html") == Card.read(tmp_path / "card.json")
    assert heard.foreign == []
    saved = open_page((tmp_path / "card.html").as_uri())
    for name in FIGURES:
        saved.wait_for_selector(f"#{name} svg.main-svg", timeout=PATIENCE)
    heard.foreign.remove((tmp_path / "card.html").as_uri())
