"""Servers that tests start in processes of their own: a free port, waiting for the first answer, and a sure end."""

import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    words: list[str], address: str, log: Path, *, folder: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a server, wait until `address` answers, and end it afterwards; what it says goes to `log`."""
    with log.open("wb") as out:
        server = subprocess.Popen(words, cwd=folder, env=environment, stdout=out, stderr=out)
        try:
            wait_for(address, server, log)
            yield server
        finally:
            server.terminate()
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path, seconds: float = 180) -> None:
    """Return as soon as `address` answers."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(address, timeout=60).close()
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.3)
        else:
            return
    raise AssertionError(f"nothing answered at {address} within {seconds} seconds: {log.read_text()}")
