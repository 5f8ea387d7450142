"""The static page of a squeezed model, opened from disk in a real Chromium: by keyboard, in both modes, without the network."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

import workbench as wb
from workbench.analysis.decisions.squeeze import Squeeze
from workbench.analysis.decisions.squeeze_page import collect_page_steps
from workbench.analysis.decisions.stops import Stop
from workbench.jobs import run_steps
from workbench.models.text import Text
from workbench.store import Store
from workbench.views.decisions.squeeze_page import save_squeeze_page

pytestmark = [pytest.mark.browser, pytest.mark.slow]
STORY = Text("story", ("The small dog ran to the river. " * 6, "A bird sat on the roof and sang. " * 6))
STOPS = (Stop(16, "none", 1), Stop(2, "rtn:bits=2,group=32", 1), Stop(1, "rtn:bits=1,group=32", 1))


@pytest.fixture(scope="module")
def saved(tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("squeeze-page")
    squeeze = Squeeze(wb.open_model(tiny_models["llama"]), Store(folder / "store"), stops=STOPS, evaluation=STORY)
    return save_squeeze_page(run_steps(collect_page_steps(squeeze, "Once upon", tokens=6)), folder / "page.html")


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_it_works_from_disk_by_keyboard(chromium: Browser, saved: Path, mode: str) -> None:
    context = chromium.new_context(color_scheme=mode, viewport={"width": 390, "height": 844})  # type: ignore[arg-type]
    page, requests, errors = context.new_page(), [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(saved.as_uri())
    slider = page.get_by_role("slider")
    expect(slider).to_have_attribute("aria-valuetext", "32.00 stored bits (the original)")
    expect(page.get_by_text("weights of this layer", exact=False).first).to_be_visible()
    slider.focus()
    page.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "2.56 stored bits (rtn:bits=2,group=32)")
    expect(page.locator(".stop:visible h2")).to_have_text("What does it write?")
    expect(page.locator("#plot-histogram .bars")).to_have_count(2)
    page.get_by_role("combobox").select_option(index=3)
    expect(page.locator("#plot-map .heatmaplayer image")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing sticks out sideways"
    found = Axe().run(page, options={"runOnly": ["wcag2a", "wcag2aa"]})
    assert [problem["id"] for problem in found.response["violations"]] == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
    assert errors == []
    context.close()
