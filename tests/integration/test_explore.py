"""`workbench explore` serves the explorer, answers on its port, and ends when it is told to."""

import signal
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.servers import free_port, running

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_explore_serves_and_ends(tmp_path: Path) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}/explorer"
    code = "from workbench.cli import main; main()"
    words = [sys.executable, "-c", code, "explore", "builtin", "--no-browser", "--port", str(port)]
    with running(words, address, tmp_path / "log", folder=ROOT) as server:
        with urllib.request.urlopen(address, timeout=60) as page:
            assert "<title>workbench</title>" in page.read().decode()
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) is not None
    assert "Traceback" not in (tmp_path / "log").read_text()
