"""The notebooks in a real JupyterLab in a real browser, cut off from the internet, with their solutions and a cell for each
claim: all cells run without a warning, what is claimed is true, pictures appear, controls live."""

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import nbformat
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import HARMLESS
from tests.browser.visitor import read_style, rgb
from tests.integration.notebook_claims import CLAIMS
from tests.lessons import NOTEBOOKS, ROOT, claimed, read
from tests.servers import free_port, running
from workbench.views.theme import LIGHT

PATIENCE = 600_000  # milliseconds; a whole notebook takes about a minute on two idle cores, and much longer on busy ones
SETTINGS = {
    "@jupyterlab/apputils-extension/themes.jupyterlab-settings": {"theme": "JupyterLab Dark"},
    "@jupyterlab/notebook-extension/tracker.jupyterlab-settings": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification.jupyterlab-settings": {"fetchNews": "false", "checkForUpdates": False},
}
# Panel asks for these even where scripts are inline; it has them inside and does without
STYLES = "https://cdn.holoviz.org/panel/"

ERROR = '[data-mime-type="application/vnd.jupyter.error"]'
LOST = ("isn't known", "is not iterable")  # what a page says that cannot read a message from the kernel

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@dataclass(frozen=True)
class Lab:
    """A JupyterLab: its address, and the folder of notebooks that it serves."""

    address: str
    folder: Path

    def end_kernels(self) -> None:
        """Give back the memory of the notebooks that have run."""
        for session in json.load(urlopen(f"{self.address}/api/sessions")):
            urlopen(Request(f"{self.address}/api/sessions/{session['id']}", method="DELETE")).close()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A JupyterLab with its own settings, serving a copy of the notebooks."""
    root = tmp_path_factory.mktemp("lab")
    folder, settings = root / "notebooks", root / "settings"
    folder.mkdir()
    for path in NOTEBOOKS:
        nbformat.write(claimed(read(path), CLAIMS[path.stem]), folder / path.name)
    for name, values in SETTINGS.items():
        path = settings / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    folders = {f"JUPYTER_{name}_DIR": str(root / name.lower()) for name in ("CONFIG", "DATA", "RUNTIME")}
    folders |= {"JUPYTERLAB_SETTINGS_DIR": str(settings), "JUPYTERLAB_WORKSPACES_DIR": str(root / "workspaces")}
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token="]
    words = [sys.executable, "-m", "jupyter", "lab", *options, "--ServerApp.disable_check_xsrf=True"]
    environment = {**os.environ, **folders, "PYTHONPATH": str(ROOT)}
    with running(words, f"{address}/api/status", root / "log", folder=folder, environment=environment):
        yield Lab(address, folder)


@pytest.fixture
def page(chromium: Browser, lab: Lab) -> Iterator[Page]:
    """A window that reaches nothing but JupyterLab, asks for nothing else, and understands every message of the kernel."""
    foreign: list[str] = []
    faults: list[str] = []
    page = chromium.new_page(viewport={"width": 1300, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.route(lambda url: not url.startswith(lab.address), lambda route: (foreign.append(route.request.url), route.abort()))
    page.on("pageerror", lambda error: faults.append(str(error)) if str(error) not in HARMLESS else None)
    page.on("console", lambda message: faults.append(message.text) if any(word in message.text for word in LOST) else None)
    yield page
    page.close()
    lab.end_kernels()
    assert faults == []
    assert [url for url in foreign if not (url.startswith(STYLES) and ".css" in url)] == []


def test_tour(page: Page, lab: Lab) -> None:
    run_all(page, lab, "0_tour.ipynb")
    wait_until_all_ran(page)
    check_figures(page, lab.folder / "0_tour.ipynb")
    quantize = page.get_by_role("button", name="Quantize this layer")
    assert page.locator(".js-plotly-plot").get_by_text("Which layer is the most sensitive?").count() == 1
    solution = page.locator(".jp-Notebook details").first
    assert not solution.locator("pre").is_visible(), "a solution is folded"
    solution.locator("summary").click()
    solution.locator("pre").wait_for()

    assert (
        page.get_by_label("Squeeze", exact=True).first.get_attribute("aria-valuetext").endswith(("stored bits", "not built yet"))
    )

    for words in (page.get_by_role("heading", name="Bench").first, page.locator("label", has_text="bits").first):
        assert read_style(words, "color") == rgb(LIGHT.text), "light components have dark words in a dark notebook too"

    quantize.scroll_into_view_if_needed()
    quantize.click()
    page.get_by_text("Done: quantizing this layer").wait_for()
    page.get_by_text("This layer is not quantized yet.").wait_for(state="hidden")


# a button of each notebook's component, and what is there once the kernel has heard of it
TABLE = ("Show as table", ".tabulator-cell")
RUNNING = "role=button[name=Cancel]"
CONTROLS = {
    "1_btc_llm": TABLE,
    "2_kernels": ("Measure", RUNNING),
    "3_what_if": TABLE,
    "4_bit_allocation": ("Measure the options", RUNNING),
    "5_calibration_cache_card": ("Read the texts", RUNNING),
    "6_dashboard": TABLE,
}


@pytest.mark.parametrize("path", NOTEBOOKS[1:], ids=lambda path: path.stem)
def test_every_figure_of_a_notebook_is_drawn_and_its_controls_live(page: Page, lab: Lab, path: Path) -> None:
    run_all(page, lab, path.name)
    wait_until_all_ran(page)
    check_figures(page, lab.folder / path.name)
    label, outcome = CONTROLS[path.stem]
    control = page.get_by_role("button", name=label).locator("visible=true").first
    control.scroll_into_view_if_needed()
    control.click()
    page.locator(outcome).locator("visible=true").first.wait_for()


ALL_RAN = """() => [...document.querySelectorAll(".jp-CodeCell .jp-InputPrompt")].every(e => /\\d/.test(e.textContent))"""


def wait_until_all_ran(page: Page) -> None:
    """Wait until each cell has a number or one has failed; none says anything in red."""
    error, warning = (page.locator(f"[data-mime-type='application/vnd.jupyter.{kind}']") for kind in ("error", "stderr"))
    page.wait_for_function(f"() => document.querySelector('{ERROR}') || ({ALL_RAN})()")
    assert error.all_inner_texts() == []
    assert warning.all_inner_texts() == []


# of each figure that is seen: the place of its cell, and how many marks each of its traces has drawn
FIGURES = """() => {
    const cells = [...document.querySelectorAll(".jp-Notebook .jp-Cell")], figures = [];
    const walk = (root, cell) => root.querySelectorAll("*").forEach(e => {
        const own = e.classList.contains("jp-Cell") ? e : cell ?? e.closest(".jp-Cell");
        if (e.classList.contains("js-plotly-plot") && e.clientWidth)
            figures.push({ cell: cells.indexOf(own), drawn: (e.calcdata ?? []).map(marks => marks.length) });
        if (e.shadowRoot) walk(e.shadowRoot, own) });
    walk(document, null);
    return figures;
}"""
FIGURE_CALL = re.compile(r"wb\.figures\.\w+\(.*\)", re.S)


def check_figures(page: Page, path: Path) -> None:
    """Each cell that ends with a figure shows one, and no figure of the page is empty."""
    page.wait_for_function(f"() => ({FIGURES})().every(({{ drawn }}) => drawn.length && drawn.every(Boolean))")
    cells = read(path).cells
    expected = {place for place, cell in enumerate(cells) if FIGURE_CALL.fullmatch(cell.source.split("\n")[-1])}
    figures: list[dict[str, Any]] = page.evaluate(FIGURES)
    assert expected <= {figure["cell"] for figure in figures}
    assert len(figures) >= max(1, len(expected))


def choose_kernel(page: Page) -> None:
    """Wait for the kernel; a first visit may be asked for one, and what is run before that is lost."""
    idle, dialog = page.locator("#jp-main-statusbar").get_by_text("| Idle"), page.locator(".jp-Dialog:visible")
    idle.or_(dialog).first.wait_for()
    if dialog.count():
        dialog.locator(".jp-mod-accept").first.click()
        idle.wait_for()


def write_notebook(lab: Lab, name: str, cells: Sequence[str]) -> str:
    """Write a notebook with these cells; its name."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, lab.folder / name)
    return name


def run_all(page: Page, lab: Lab, name: str) -> None:
    """Open a notebook in a workspace of its own, so that no other one is open, and run all of its cells."""
    page.goto(f"{lab.address}/lab/workspaces/{Path(name).stem}/tree/{name}")
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


def test_an_inspector_alone_and_a_linked_pair(page: Page, lab: Lab) -> None:
    run_all(page, lab, write_notebook(lab, "parts.ipynb", PARTS))

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
    assert read_style(pair.locator("select").first, "color") == "rgb(0, 0, 0)", (
        "fields of an ipywidget have dark words on white in a dark notebook too"
    )
    widths = [pair.locator(".jupyter-widgets.widget-hbox > *").nth(n).bounding_box()["width"] for n in (0, 1)]
    assert widths[0] == pytest.approx(widths[1], rel=0.05), "components side by side are as wide as each other"


RASTER = (
    "import ipywidgets\nimport workbench as wb\nmodel = wb.open_model('builtin')",
    f"view = wb.WeightRaster(model, '{LAYER}')\nview",
    f"ipywidgets.HBox([wb.WeightRaster(model, '{LAYER}').ipywidget()])",
)


def test_a_raster_lives_in_a_cell_and_in_a_box(page: Page, lab: Lab) -> None:
    run_all(page, lab, write_notebook(lab, "raster.ipynb", RASTER))

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
