"""Many visitors of a served explorer: what a visitor used is free again when they have left."""

import sys
import time
from pathlib import Path

import panel as pn
import psutil
import pytest
from bokeh.client import pull_session

from tests.servers import free_port, running
from workbench.widgets.offline import EXTENSIONS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
VISITORS = 20
LIFETIME = 1000  # milliseconds that an abandoned session is kept
GROWTH = 1.10


def visit(address: str) -> None:
    """Open a session as a browser does, get its page, and leave."""
    session = pull_session(url=address)
    assert session.document.roots, "the page is empty"
    session.close()


def settled(process: psutil.Process) -> int:
    """Memory in bytes, the least of some seconds: sessions are looked through now and then."""
    sizes = []
    for _ in range(8):
        time.sleep(LIFETIME / 1000)
        sizes.append(process.memory_info().rss)
    return min(sizes)


def test_twenty_sessions_leave_no_memory_behind(tmp_path: Path) -> None:
    pn.extension(*EXTENSIONS)  # the classes of what a page holds
    port = free_port()
    address = f"http://127.0.0.1:{port}/explorer"
    words = [sys.executable, "-m", "panel", "serve", "apps/explorer.py", "--warm", "--address", "127.0.0.1", "--port", str(port)]
    words += ["--unused-session-lifetime", str(LIFETIME), "--check-unused-sessions", "500"]
    with running(words, address, tmp_path / "log", folder=ROOT) as server:
        process = psutil.Process(server.pid)
        for _ in range(3):  # what is loaded once, whoever comes
            visit(address)
        before = settled(process)
        for _ in range(VISITORS):
            visit(address)
        after = settled(process)
    assert after < GROWTH * before, f"{before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after {VISITORS} visitors"
