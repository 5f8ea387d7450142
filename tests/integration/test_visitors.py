"""Many visitors of a served explorer: what a visitor used is free again when they have left."""

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import panel as pn
import psutil
import pytest
from bokeh.client import pull_session

from tests.servers import free_port, running
from workbench.views.holoviews_style import load_holoviews
from workbench.widgets.panel_patches.offline_resources import EXTENSIONS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
LIFETIME = 300  # milliseconds that an abandoned session is kept
PATIENCE = 60  # seconds until it must be gone: sessions are looked through now and then, and what all share is read to its end
VISITORS, SOME = 20, 6
LATEST = 1  # on a busy machine something at work may still know the last visitor's page
GROWTH = 1.10
RASTER = """
import workbench as wb
from workbench.session import Session
from workbench.widgets.shell.page import open_shared_model, visit
visit(lambda: wb.WeightRaster(Session(open_shared_model("builtin")))).servable()
"""
CENSUS = """
import gc
import threading
import panel as pn
import workbench as wb
gc.collect()
alive = sum(type(thing) in (wb.Explorer, wb.WeightRaster) for thing in gc.get_objects())
working = sum(thread.name.startswith("workbench") for thread in threading.enumerate())
pn.pane.HTML("alive").servable(title=f"{alive} {working}")
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, psutil.Process]]:
    """Address and process of a server with the explorer, and a page that counts the explorers that are alive."""
    pn.extension(*EXTENSIONS)  # the classes of what a page holds
    load_holoviews()
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    pages = {"census": CENSUS, "raster": RASTER}
    for name, code in pages.items():
        (folder / f"{name}.py").write_text(code)
    apps = ["apps/explorer.py", *(str(folder / f"{name}.py") for name in pages)]
    words = [sys.executable, "-m", "panel", "serve", *apps, "--address", "127.0.0.1"]
    words += ["--port", str(port), "--unused-session-lifetime", str(LIFETIME), "--check-unused-sessions", "200"]
    address = f"http://127.0.0.1:{port}"
    with running(words, f"{address}/explorer", folder / "log", folder=ROOT) as started:
        yield address, psutil.Process(started.pid)


def opened(address: str) -> str:
    """Open a session as a browser does, get its page, and leave; the page's title."""
    session = pull_session(url=address)
    assert session.document.roots, "the page is empty"
    session.close()
    return str(session.document.title)


def visit(address: str) -> str:
    """`opened`, in a thread of its own: where browser tests went before, this one's event loop is still running."""
    with ThreadPoolExecutor(max_workers=1) as visitor:
        return visitor.submit(opened, address).result()


def left_behind(address: str, *, working: bool = True) -> int:
    """How many explorers are left in the server once all visitors have gone, or after `PATIENCE`; and threads that work."""
    end = time.monotonic() + PATIENCE
    while (count := sum(map(int, visit(f"{address}/census").split()[: 1 + working]))) and time.monotonic() < end:
        time.sleep(2 * LIFETIME / 1000)
    return count


def test_no_page_outlives_its_visitor(server: tuple[str, psutil.Process]) -> None:
    address, _ = server
    for _ in range(SOME):
        visit(f"{address}/explorer")
    count = left_behind(address, working=False)
    assert count <= LATEST, f"{count} explorers of {SOME} visitors who have left are still in memory"


@pytest.mark.parametrize("page", ["explorer", "raster"])
def test_twenty_visitors_leave_no_memory_behind(server: tuple[str, psutil.Process], page: str) -> None:
    address, process = server
    for _ in range(3):  # what is loaded once, whoever comes
        visit(f"{address}/{page}")
    left_behind(address)
    before = process.memory_info().rss
    for _ in range(VISITORS):
        visit(f"{address}/{page}")
    assert left_behind(address, working=False) <= LATEST
    after = process.memory_info().rss
    assert after < GROWTH * before, f"{before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after {VISITORS} visitors"
