"""The dashboard: serves apps/explorer.py with panel, in a process of its own, on this machine only."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.arguments import holds_recipe
from workbench.errors import ModelError

PACKAGE = Path(__file__).resolve().parents[1]


def explore(
    model: Annotated[str, typer.Argument(metavar="[MODEL]", help="builtin, a folder with safetensors, or a hub id.")] = "builtin",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the dashboard is served.")] = 5006,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open it in a browser.")] = True,
) -> None:
    """Open the explorer at http://127.0.0.1:5006/explorer (Ctrl-C ends it)."""
    if holds_recipe(model):
        raise ModelError(f"{model!r} holds a quantized model; open the original and load the result there.")
    from workbench.models import open_model

    open_model(model)  # a mistake is told here, in one line, and not in the page
    raise typer.Exit(subprocess.call(command(model, port, browser)))


def command(model: str, port: int, browser: bool) -> list[str]:
    """How the server is started."""
    address = ["--address", "127.0.0.1", "--port", str(port)]
    origins = [f"--allow-websocket-origin={host}:{port}" for host in ("127.0.0.1", "localhost")]
    show = ["--show"] if browser else []
    return [sys.executable, "-m", "panel", "serve", str(app_file()), *address, *origins, *show, "--args", model]


def app_file() -> Path:
    """apps/explorer.py: beside the package in a clone, below sys.prefix where a wheel was installed."""
    places = [folder / "apps" / "explorer.py" for folder in (PACKAGE.parent, Path(sys.prefix) / "share/quantization-workbench")]
    return next(path for path in places if path.is_file())
