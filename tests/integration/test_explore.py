"""`workbench explore` serves the explorer, answers on its port, and ends when it is told to."""

import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, server: subprocess.Popen[bytes], seconds: float = 120) -> str:
    """The page at `url`, as soon as it is served."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(url, timeout=60) as page:
                return page.read().decode()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.3)
    raise AssertionError(f"nothing answered at {url} within {seconds} seconds")


@pytest.mark.slow
def test_explore_serves_and_ends(tmp_path: Path) -> None:
    port = free_port()
    words = ["explore", "builtin", "--no-browser", "--port", str(port)]
    code = "from workbench.cli import main; main()"
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-c", code, *words], cwd=ROOT, stdout=log, stderr=log)
        try:
            page = wait_for(f"http://127.0.0.1:{port}/explorer", server)
            server.send_signal(signal.SIGTERM)
            server.wait(30)
        finally:
            server.kill()
    assert "<title>workbench</title>" in page
    assert "Traceback" not in (tmp_path / "log").read_text()
