"""Many visitors acting at once on one served explorer: `python -m tests.visitors [SECONDS] [VISITORS]`.

Each opens the page as a browser does, and then turns a setting or chooses another layer every few seconds. What is printed: how
long the pages took to open and the answers to come, errors, and the server's memory before and after.
"""

import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import panel as pn
import psutil
from bokeh.client import ClientSession, pull_session
from bokeh.models import Select, Spinner

from tests.servers import free_port, running
from workbench.widgets.panel_patches.offline_resources import EXTENSIONS

ROOT = Path(__file__).resolve().parents[1]
PAUSE = (1.0, 6.0)  # seconds that a visitor looks at what came
LEAVING = 30  # seconds after which the memory of those who left should be free
LIFETIME = 1000  # milliseconds that an abandoned session is kept


@dataclass
class Visit:
    """What one visitor saw."""

    opening: float = 0.0  # seconds
    answers: list[float] = field(default_factory=list)  # seconds
    errors: list[str] = field(default_factory=list)


def find(session: ClientSession, kind: type, title: str) -> Any:
    """The input of the page that has this label."""
    return next(
        model for model in session.document.select({"type": kind}) if title in (model.title, getattr(model, "name", None))
    )


def act(session: ClientSession, rng: random.Random) -> None:
    """Turn one knob of the page."""
    if rng.random() < 0.5:
        find(session, Spinner, "bits").value = rng.choice([1, 2, 3, 4])
    else:
        layer = find(session, Select, "Layer")
        layer.value = rng.choice([option if isinstance(option, str) else option[0] for option in layer.options])


def visit(address: str, end: float, seed: int) -> Visit:
    """Open the page and act until `end` (of the monotonic clock)."""
    rng, seen = random.Random(seed), Visit()
    try:
        begin = time.monotonic()
        session = pull_session(url=address)
        seen.opening = time.monotonic() - begin
        while time.monotonic() < end:
            time.sleep(rng.uniform(*PAUSE))
            begin = time.monotonic()
            act(session, rng)
            session.force_roundtrip()
            seen.answers.append(time.monotonic() - begin)
        session.close()
    except Exception as error:  # noqa: BLE001 - whatever a visitor meets is what this is about
        seen.errors.append(f"{type(error).__name__}: {error}")
    return seen


def describe(name: str, seconds: Sequence[float]) -> str:
    """Median, 95 % and slowest."""
    if not seconds:
        return f"{name}: none"
    ordered = sorted(seconds)
    late = ordered[int(0.95 * len(ordered))]
    return f"{name}: {len(ordered)}, median {statistics.median(ordered):.1f} s, 95 % {late:.1f} s, slowest {ordered[-1]:.1f} s"


def main(seconds: float = 600, visitors: int = 30) -> None:
    """Serve the explorer, let the visitors in, and print what they saw."""
    pn.extension(*EXTENSIONS)
    port = free_port()
    words = [sys.executable, "-m", "panel", "serve", "apps/explorer.py", "--warm", "--address", "127.0.0.1", "--port", str(port)]
    words += ["--unused-session-lifetime", str(LIFETIME), "--check-unused-sessions", "500"]
    address = f"http://127.0.0.1:{port}/explorer"
    with tempfile.TemporaryDirectory() as folder, running(words, address, Path(folder) / "log", folder=ROOT) as server:
        memory = psutil.Process(server.pid).memory_info
        before, end = memory().rss, time.monotonic() + seconds
        with ThreadPoolExecutor(visitors) as threads:
            visits = list(threads.map(lambda seed: visit(address, end, seed), range(visitors)))
        during = memory().rss
        time.sleep(LEAVING)
        after = memory().rss
        log = (Path(folder) / "log").read_text()
    errors = [error for seen in visits for error in seen.errors]
    lines = [
        describe("pages opened", [seen.opening for seen in visits if seen.opening]),
        describe("answers", [answer for seen in visits for answer in seen.answers]),
        f"errors: {len(errors)}; tracebacks in the server's log: {log.count('Traceback')}",
        f"memory: {before / 1e6:.0f} MB before, {during / 1e6:.0f} MB at the end, {after / 1e6:.0f} MB {LEAVING} s after",
        *errors,
    ]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(*(kind(word) for kind, word in zip((float, int), sys.argv[1:], strict=False)))
