"""A really served explorer and a real Chromium, with ears for what goes wrong on the page."""

import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Request, WebSocket, sync_playwright

from tests.browser.visitor import PATIENCE, Open
from tests.servers import free_port, running

ROOT = Path(__file__).resolve().parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
APPS = [f"apps/{name}.py" for name in ("explorer", "compare", "codebook", "parts")]
# Plotly 3 resizes a figure 100 ms after its place changed, also where the figure has been taken away or is not drawn yet by then
HARMLESS = [f"Cannot read properties of undefined (reading '{name}')" for name in ("_guiEditing", "_redrawFromAutoMarginCount")]
LARGEST_MESSAGE = 2_000_000  # bytes


@dataclass
class Heard:
    """What a page did behind the user's back."""

    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    largest_message: int = 0

    def listen(self, page: Page) -> None:
        """Write down errors, requests to other hosts and the size of websocket messages."""
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)) if str(error) not in HARMLESS else None)
        page.on("request", self._request)
        page.on("websocket", self._websocket)

    def _request(self, request: Request) -> None:
        if not request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            self.foreign.append(request.url)

    def _websocket(self, socket: WebSocket) -> None:
        if not socket.url.startswith("ws://127.0.0.1:"):
            self.foreign.append(socket.url)

        def frame(payload: str | bytes) -> None:
            self.largest_message = max(self.largest_message, len(payload))

        socket.on("framereceived", frame)
        socket.on("framesent", frame)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The installed Chromium, without a window."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("no Chromium on this machine; install chromium to run the browser tests")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def served(log: Path, *arguments: str, apps: Sequence[str] = APPS, page: str = "explorer") -> Iterator[str]:
    """`panel serve` with `apps` on a free port, as the address of one `page`; ended afterwards."""
    port = free_port()
    words = [sys.executable, "-m", "panel", "serve", *apps, "--warm", "--address", "127.0.0.1"]
    words += ["--port", str(port), f"--allow-websocket-origin=127.0.0.1:{port}", *arguments]
    address = f"http://127.0.0.1:{port}/{page}"
    with running(words, address, log, folder=ROOT):
        yield address


@pytest.fixture(scope="session")
def address(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The explorer on the built-in model."""
    with served(tmp_path_factory.mktemp("server") / "log") as address:
        yield address


@pytest.fixture(scope="session")
def tiny(chromium: Browser, tiny_models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The explorer on a tiny Llama."""
    with served(tmp_path_factory.mktemp("tiny") / "log", "--args", str(tiny_models["llama"])) as address:
        yield address


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What the pages of one test did behind the user's back: no error, no request to another host, no huge message."""
    heard = Heard()
    yield heard
    assert heard.errors == []
    assert heard.foreign == []
    assert heard.largest_message < LARGEST_MESSAGE


@pytest.fixture
def open_page(chromium: Browser, heard: Heard) -> Iterator[Open]:
    """Open an address in a window of its own; `width` in pixels. The windows close with the test."""
    pages: list[Page] = []

    def open_one(address: str, width: int = 1440) -> Page:
        page = chromium.new_page(viewport={"width": width, "height": 1000})
        page.set_default_timeout(PATIENCE)
        heard.listen(page)
        pages.append(page)
        page.goto(address)
        return page

    yield open_one
    for page in pages:
        page.close()
