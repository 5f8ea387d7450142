"""The command line: each command is a thin wrapper around the calls that a notebook makes.

Exit status 0; 1 with one line `error: …` on standard error for a user's mistake; 2 for wrong usage.
"""

import warnings
from typing import Annotated, Any, NoReturn, cast

import typer

from workbench import __version__
from workbench.cli.allocate import allocate
from workbench.cli.bench import bench
from workbench.cli.card import card, diff
from workbench.cli.explore import explore, serve
from workbench.cli.kv import kv
from workbench.cli.measure import compare, evaluate, generate, whatif
from workbench.cli.page import export_page
from workbench.cli.quantize import quantize
from workbench.cli.show import layers, recipes
from workbench.cli.squeeze import squeeze
from workbench.cli.store import store
from workbench.cli.streams import adapt_streams, note
from workbench.errors import WorkbenchError
from workbench.import_name import check_import_name
from workbench.outputs import explain_os_error

app = typer.Typer(
    help="Quantize language models below 4, 2 and 1 bit, and measure the effect.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def show_version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Quantize language models below 4, 2 and 1 bit, and see what it does."""
    if version:
        typer.echo(f"workbench {__version__}")
        raise typer.Exit


app.command()(explore)
app.add_typer(serve, name="serve")
app.command()(layers)
app.command()(recipes)
app.command()(quantize)
app.command()(allocate)
app.command("eval")(evaluate)
app.command()(generate)
app.command()(compare)
app.command()(whatif)
app.command()(squeeze)
app.command("export-page")(export_page)
app.command()(bench)
app.command()(card)
app.command()(diff)
app.command()(kv)
app.command()(store)


def _show_warning(message: Warning | str, *_where: Any) -> None:
    """Print a warning as one line, without the line of code that it comes from."""
    note(f"warning: {' '.join(str(message).split())}")


def main() -> None:
    """Run the command line; a mistake that a user can mend is one line, never a traceback."""
    adapt_streams()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = cast(Any, _show_warning)  # called with more arguments than it reads
            check_import_name()
            app(prog_name="workbench")
    except WorkbenchError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{error.filename or 'a file'} cannot be used: {explain_os_error(error)}.")


def fail(sentence: str) -> NoReturn:
    """End with one line on standard error."""
    note(f"error: {' '.join(sentence.split())}")
    raise SystemExit(1) from None
