"""The tour in a real JupyterLab in a real browser, cut off from the internet: cells run, pictures appear, controls live."""

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.visitor import rgb
from tests.servers import free_port, running
from workbench.views.theme import LIGHT

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 300_000  # milliseconds; the whole notebook takes about a minute on two idle cores
SETTINGS = {
    "@jupyterlab/apputils-extension/themes.jupyterlab-settings": {"theme": "JupyterLab Dark"},
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false", "checkForUpdates": False},
}
# Panel asks for these even where scripts are inline; it has them inside and does without
STYLES = "https://cdn.holoviz.org/panel/"

LOST = ("isn't known", "is not iterable")  # what a page says that cannot read a message from the kernel

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """The address of a JupyterLab with its own settings, serving a copy of the notebooks."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    for name, values in SETTINGS.items():
        path = tmp_path / "settings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    folders = {f"JUPYTER_{name}_DIR": str(tmp_path / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    folders |= {"JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces")}
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token="]
    words = [sys.executable, "-m", "jupyter", "lab", *options]
    environment = {**os.environ, **folders, "PYTHONPATH": str(ROOT)}
    with running(words, f"{address}/api/status", tmp_path / "log", folder=tmp_path / "notebooks", environment=environment):
        yield address


@pytest.fixture
def foreign() -> list[str]:
    """Requests that tried to leave this machine."""
    return []


@pytest.fixture
def page(chromium: Browser, lab: str, foreign: list[str]) -> Iterator[Page]:
    """A window that reaches nothing but JupyterLab."""
    page = chromium.new_page(viewport={"width": 1300, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.route(lambda url: not url.startswith(lab), lambda route: (foreign.append(route.request.url), route.abort()))
    yield page
    page.close()


def test_tour(page: Page, lab: str, foreign: list[str]) -> None:
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if any(word in message.text for word in LOST) else None)
    page.goto(f"{lab}/lab/tree/0_tour.ipynb")
    page.locator(".jp-Notebook").wait_for()
    choose_kernel(page)
    page.get_by_text("Run", exact=True).first.click()
    page.get_by_text("Run All Cells", exact=True).click()

    quantize = page.get_by_role("button", name="Quantize this layer")
    error = page.locator("[data-mime-type='application/vnd.jupyter.error']")
    quantize.or_(error).first.wait_for()
    assert error.all_inner_texts() == []
    assert page.locator(".js-plotly-plot .bars").count() >= 2
    assert page.locator(".js-plotly-plot").get_by_text("Which layer is the most sensitive?").count() == 1
    solution = page.locator(".jp-Notebook details").first
    assert not solution.locator("pre").is_visible(), "a solution is folded"
    solution.locator("summary").click()
    solution.locator("pre").wait_for()

    assert (
        page.get_by_label("Squeeze", exact=True).first.get_attribute("aria-valuetext").endswith(("stored bits", "not built yet"))
    )

    for words in (page.get_by_role("heading", name="Bench").first, page.locator("label", has_text="bits").first):
        assert words.evaluate("e => getComputedStyle(e).color") == rgb(LIGHT.text), (
            "light components have dark words in a dark notebook too"
        )

    quantize.scroll_into_view_if_needed()
    quantize.click()
    page.get_by_text("Done: quantizing this layer").wait_for()
    page.get_by_text("This layer is not quantized yet.").wait_for(state="hidden")
    assert faults == []
    assert [url for url in foreign if not (url.startswith(STYLES) and ".css" in url)] == []


def choose_kernel(page: Page) -> None:
    """Wait for the kernel; a first visit may be asked for one, and what is run before that is lost."""
    idle, dialog = page.locator("#jp-main-statusbar").get_by_text("| Idle"), page.locator(".jp-Dialog:visible")
    idle.or_(dialog).first.wait_for()
    if dialog.count():
        dialog.locator(".jp-mod-accept").first.click()
        idle.wait_for()


def run_all(page: Page, lab: str, path: Path, cells: Sequence[str]) -> None:
    """Write a notebook with these cells, open it, and run all of them."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, path)
    page.goto(f"{lab}/lab/tree/{path.name}")
    page.locator(".jp-Notebook").wait_for()
    choose_kernel(page)
    page.get_by_text("Run", exact=True).first.click()
    page.get_by_text("Run All Cells", exact=True).click()


LAYER = "model.layers.0.mlp.down_proj"
PARTS = (
    "import ipywidgets\nimport workbench as wb\nmodel = wb.open_model('builtin')",
    "wb.WeightInspector(model)",
    f"""view = wb.WeightInspector(model, '{LAYER}')
ipywidgets.HBox([wb.LayerBench(view).ipywidget(), wb.LayerErrors(view).ipywidget()])""",
    f"""result = wb.quantize(model, '{LAYER}', wb.recipe('rtn'))
wb.figures.bit_ledger(result.ledger)""",
)


def test_an_inspector_alone_and_a_linked_pair(page: Page, lab: str, tmp_path: Path, foreign: list[str]) -> None:
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    run_all(page, lab, tmp_path / "notebooks" / "parts.ipynb", PARTS)

    cells = page.locator(".jp-CodeCell")
    error = page.locator("[data-mime-type='application/vnd.jupyter.error']")
    cells.nth(3).locator(".js-plotly-plot .bars").or_(error).first.wait_for()
    assert error.all_inner_texts() == []
    alone, pair, figure = cells.nth(1), cells.nth(2), cells.nth(3)
    alone.locator(".js-plotly-plot .main-svg:visible").first.wait_for()
    assert figure.get_by_text("bits per weight").count() >= 1

    waiting = pair.get_by_text("This layer is not quantized yet.")
    waiting.wait_for()
    quantize = pair.get_by_role("button", name="Quantize this layer")
    quantize.scroll_into_view_if_needed()
    quantize.click()
    pair.get_by_text("Done: quantizing this layer").wait_for()
    waiting.wait_for(state="hidden")
    pair.locator(".js-plotly-plot .main-svg:visible").first.wait_for()
    assert pair.locator("select").first.evaluate("e => getComputedStyle(e).color") == "rgb(0, 0, 0)", (
        "fields of an ipywidget have dark words on white in a dark notebook too"
    )
    widths = [pair.locator(".jupyter-widgets.widget-hbox > *").nth(n).bounding_box()["width"] for n in (0, 1)]
    assert widths[0] == pytest.approx(widths[1], rel=0.05), "components side by side are as wide as each other"
    assert faults == []
    assert [url for url in foreign if not (url.startswith(STYLES) and ".css" in url)] == []


RASTER = (
    "import ipywidgets\nimport workbench as wb\nmodel = wb.open_model('builtin')",
    f"view = wb.WeightRaster(model, '{LAYER}')\nview",
    f"ipywidgets.HBox([wb.WeightRaster(model, '{LAYER}').ipywidget()])",
)


def test_a_raster_lives_in_a_cell_and_in_a_box(page: Page, lab: str, tmp_path: Path, foreign: list[str]) -> None:
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    run_all(page, lab, tmp_path / "notebooks" / "raster.ipynb", RASTER)

    cells = page.locator(".jp-CodeCell")
    error = page.locator("[data-mime-type='application/vnd.jupyter.error']")
    cells.nth(2).locator("canvas:visible").or_(error).first.wait_for()
    assert error.all_inner_texts() == []
    for cell in (cells.nth(1), cells.nth(2)):
        picture = cell.locator("canvas:visible").first
        picture.scroll_into_view_if_needed()
        box = picture.bounding_box()
        page.mouse.move(box["x"] + 0.4 * box["width"], box["y"] + 0.3 * box["height"])
        page.mouse.down()
        page.mouse.move(box["x"] + 0.6 * box["width"], box["y"] + 0.5 * box["height"], steps=5)
        page.mouse.up()
        expect(cell.get_by_label("First row", exact=True)).not_to_have_value("0")
        expect(cell.get_by_text("single weights; the largest original weight")).to_be_visible()
        cell.get_by_role("button", name="Whole matrix", exact=True).click()
        expect(cell.get_by_label("First row", exact=True)).to_have_value("0")
    assert faults == []
    assert [url for url in foreign if not (url.startswith(STYLES) and ".css" in url)] == []
