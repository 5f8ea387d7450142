"""Many visitors: one model in memory, and what a visitor used is free again when they have left."""

import sys
import time
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import ROOT
from tests.servers import free_port, running

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROUNDS, VISITORS = 4, 5
LIFETIME = 2000  # milliseconds that an abandoned session is kept
GROWTH = 1.10


def visit(chromium: Browser, address: str) -> None:
    """Open the page in several windows at once, wait until each shows the bench, and leave."""
    pages = [chromium.new_page() for _ in range(VISITORS)]
    for page in pages:
        page.set_default_timeout(120_000)
        page.goto(address)
    for page in pages:
        page.get_by_role("button", name="Quantize this layer").wait_for()
        page.close()


def settled(process: psutil.Process) -> int:
    """Memory in bytes once it stops falling."""
    least = process.memory_info().rss
    for _ in range(5):
        time.sleep(LIFETIME / 1000)
        least = min(least, process.memory_info().rss)
    return least


def test_twenty_sessions_leave_no_memory_behind(chromium: Browser, tmp_path: Path) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}/explorer"
    words = [sys.executable, "-m", "panel", "serve", "apps/explorer.py", "--warm", "--address", "127.0.0.1", "--port", str(port)]
    words += [f"--allow-websocket-origin=127.0.0.1:{port}"]
    words += ["--unused-session-lifetime", str(LIFETIME), "--check-unused-sessions", "500"]
    with running(words, address, tmp_path / "log", folder=ROOT) as server:
        process = psutil.Process(server.pid)
        visit(chromium, address)  # what is loaded once, whoever comes
        before = settled(process)
        for _ in range(ROUNDS):
            visit(chromium, address)
        after = settled(process)
    assert after < GROWTH * before, f"{before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after {ROUNDS * VISITORS} visitors"
