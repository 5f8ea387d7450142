"""The dashboards: this process becomes `panel serve apps/….py`, reachable from this machine only."""

import os
import socket
import sys
from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.arguments import has_recipe
from workbench.cli.help_pages import PlainCommand, PlainGroup
from workbench.cli.streams import note
from workbench.errors import ModelError, WorkbenchError

ADDRESS = "127.0.0.1"
PACKAGE = Path(__file__).resolve().parents[1]
ORIGINS = "BOKEH_ALLOW_WS_ORIGIN"  # bokeh takes this variable instead of the command's options, so it is made one of them

OpenedModel = Annotated[str, typer.Argument(metavar="[MODEL]", help="builtin, a folder with safetensors, or a hub id.")]
Port = Annotated[int, typer.Option(metavar="N", min=1, max=65535, help="Port of the page.")]
Browser = Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")]
Origins = Annotated[
    list[str] | None,
    typer.Option("--origin", metavar="HOST[:PORT]", help="Another address to accept: a tunnel or a proxy. Repeatable."),
]

serve = typer.Typer(cls=PlainGroup, help="Serve another page at http://127.0.0.1:5006/.", no_args_is_help=True)


def explore(model: OpenedModel = "builtin", port: Port = 5006, browser: Browser = True, origin: Origins = None) -> None:
    """Open the explorer in a browser.

    It is served at http://127.0.0.1:5006/explorer; press Ctrl-C to stop.
    """
    serve_page("explorer", [_check_model(model)], port, browser, origin or [])


@serve.command(cls=PlainCommand)
def compare(
    model: OpenedModel = "builtin",
    folders: Annotated[
        list[str] | None, typer.Argument(metavar="[DIR...]", help="Folders written by `workbench quantize`.")
    ] = None,
    port: Port = 5006,
    browser: Browser = True,
    origin: Origins = None,
) -> None:
    """Show saved models beside the original.

    Without folders, the page shows the stops of the squeeze slider that have been built. Press Ctrl-C to stop.
    """
    for folder in folders or []:
        if not has_recipe(folder):
            raise ModelError(f"{folder!r} holds no quantized model; give folders written by `workbench quantize`.")
    serve_page("compare", [_check_model(model), *(folders or [])], port, browser, origin or [])


@serve.command(cls=PlainCommand)
def codebook(model: OpenedModel = "builtin", port: Port = 5006, browser: Browser = True, origin: Origins = None) -> None:
    """Show one layer below one bit, step by step. Press Ctrl-C to stop."""
    serve_page("codebook", [_check_model(model)], port, browser, origin or [])


def _check_model(model: str) -> str:
    """The model as it was given; a mistake is told here, in one line, and not in the page."""
    if has_recipe(model):
        raise ModelError(f"{model!r} holds a quantized model; give the model it was made from.")
    from workbench.models import open_model

    open_model(model)
    return model


def serve_page(page: str, arguments: list[str], port: int, browser: bool, origins: list[str]) -> None:
    """Become the server of one page."""
    environment = {name: value for name, value in os.environ.items() if name != ORIGINS}
    origins = [*origins, *filter(None, os.environ.get(ORIGINS, "").split(","))]
    _check_free(port)
    note(f"{page} on {arguments[0]}: http://{ADDRESS}:{port}/{page}   (press Ctrl-C to stop)")
    words = build_command(page, arguments, port, browser, origins)
    os.execve(words[0], words, environment)  # no child: signals reach the server


def build_command(page: str, arguments: list[str], port: int, browser: bool, origins: list[str]) -> list[str]:
    """How the server is started."""
    address = ["--address", ADDRESS, "--port", str(port), *(["--show"] if browser else [])]
    allowed = [f"--allow-websocket-origin={host}" for host in (f"{ADDRESS}:{port}", f"localhost:{port}", *origins)]
    return [sys.executable, "-m", "panel", "serve", str(_find_app_file(page)), "--warm", *address, *allowed, "--args", *arguments]


def _find_app_file(page: str) -> Path:
    """A page's file: beside the package in a clone, below sys.prefix where a wheel was installed."""
    places = [folder / "apps" / f"{page}.py" for folder in (PACKAGE.parent, Path(sys.prefix) / "share/quantization-workbench")]
    return next(path for path in places if path.is_file())


def _check_free(port: int) -> None:
    """Raise WorkbenchError when another program has the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except OSError as error:
            why = os.strerror(error.errno or 0).lower()
            raise WorkbenchError(f"port {port} cannot be used ({why}); choose another one with --port.") from None
