"""The dashboard: this process becomes `panel serve apps/explorer.py`, reachable from this machine only."""

import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.arguments import holds_recipe
from workbench.cli.streams import note
from workbench.errors import ModelError, WorkbenchError

ADDRESS = "127.0.0.1"
PACKAGE = Path(__file__).resolve().parents[1]


def explore(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="builtin, a folder with safetensors, or a hub id.")] = "builtin",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the dashboard is served.")] = 5006,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in a browser.")] = True,
) -> None:
    """Open the explorer at http://127.0.0.1:5006/explorer; Ctrl-C ends it."""
    if holds_recipe(model):
        raise ModelError(f"{model!r} holds a quantized model; explore the model it was made from.")
    from workbench.models import open_model

    open_model(model)  # a mistake is told here, in one line, and not in the page
    check_free(port)
    note(f"explorer on {model}: http://{ADDRESS}:{port}/explorer   (Ctrl-C ends it)")
    words = command(port, browser)
    os.execve(words[0], words, {**os.environ, "WORKBENCH_MODEL": model})  # no child: signals reach the server


def command(port: int, browser: bool) -> list[str]:
    """How the server is started."""
    place = ["--address", ADDRESS, "--port", str(port)]
    origins = [f"--allow-websocket-origin={host}:{port}" for host in (ADDRESS, "localhost")]
    return [sys.executable, "-m", "panel", "serve", str(app_file()), "--warm", *place, *origins, *(["--show"] if browser else [])]


def app_file() -> Path:
    """apps/explorer.py: beside the package in a clone, below sys.prefix where a wheel was installed."""
    places = [folder / "apps" / "explorer.py" for folder in (PACKAGE.parent, Path(sys.prefix) / "share/quantization-workbench")]
    return next(path for path in places if path.is_file())


def check_free(port: int) -> None:
    """Raise WorkbenchError when another program has the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            raise WorkbenchError(f"port {port} cannot be used ({why}); choose another one with --port.") from None
