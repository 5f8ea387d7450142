"""The command line: each command is a thin wrapper around the calls that a notebook makes.

Exit status 0; 1 with one line `error: …` on standard error for a user's mistake; 2 for wrong usage.
"""

import functools
import inspect
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any, NoReturn, cast

import typer

from workbench import __version__
from workbench.cli.allocate import allocate
from workbench.cli.bench import bench
from workbench.cli.card import card, diff
from workbench.cli.compare import compare
from workbench.cli.estimate import estimate
from workbench.cli.evaluate import evaluate
from workbench.cli.explore import explore, serve
from workbench.cli.export import export
from workbench.cli.help_pages import PlainCommand, PlainGroup
from workbench.cli.jobs import jobs
from workbench.cli.kv import kv
from workbench.cli.measure import generate, whatif
from workbench.cli.page import export_page
from workbench.cli.quantize import quantize
from workbench.cli.refine import refine
from workbench.cli.show import layers, recipes
from workbench.cli.squeeze import squeeze
from workbench.cli.store import store
from workbench.cli.streams import adapt_streams, note
from workbench.cli.sweep import sweep
from workbench.cli.takeover import import_model
from workbench.errors import WorkbenchError, WorkbenchWarning
from workbench.import_name import check_import_name
from workbench.outputs import explain_os_error
from workbench.run_records import record_run
from workbench.thread_waits import shorten_spins

app = typer.Typer(
    cls=PlainGroup,
    help="Quantize language models below 4, 2 and 1 bit, and measure the effect.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.callback(invoke_without_command=True)
def show_version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Quantize language models below 4, 2 and 1 bit, and see what it does."""
    if version:
        typer.echo(f"workbench {__version__}")
        raise typer.Exit


def _record(command: Callable[..., None]) -> Callable[..., None]:
    """The same command, which `workbench jobs` lists while it runs and later; one that was typed wrongly is no run."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        with record_run(sys.argv[1:]) as recorder:
            try:
                command(*arguments, **options)
            except typer.BadParameter:
                recorder.forget()
                raise

    return run


def _add_command(command: Callable[..., None], panel: str, name: str | None = None, *, long: bool = False) -> None:
    """A command in a panel of the help; each paragraph of its docstring is one line, which the help folds as wide as it is.

    A `long` one is recorded, see `run_records`.
    """
    paragraphs = inspect.cleandoc(command.__doc__ or "").split("\n\n")
    command = _record(command) if long else command
    text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
    app.command(name, cls=PlainCommand, help=text, rich_help_panel=panel)(command)


LOOK, QUANTIZE, MEASURE, KEEP = "Look", "Quantize", "Measure", "Share and keep"

_add_command(explore, LOOK)
app.add_typer(serve, name="serve", rich_help_panel=LOOK)
_add_command(layers, LOOK)
_add_command(recipes, LOOK)
_add_command(quantize, QUANTIZE, long=True)
_add_command(refine, QUANTIZE, long=True)
_add_command(import_model, QUANTIZE, "import")
_add_command(allocate, QUANTIZE, long=True)
_add_command(squeeze, QUANTIZE, long=True)
_add_command(sweep, QUANTIZE, long=True)
_add_command(estimate, QUANTIZE)
_add_command(evaluate, MEASURE, "eval", long=True)
_add_command(generate, MEASURE)
_add_command(compare, MEASURE, long=True)
_add_command(whatif, MEASURE)
_add_command(kv, MEASURE, long=True)
_add_command(bench, MEASURE, long=True)
_add_command(card, KEEP)
_add_command(diff, KEEP)
_add_command(export, KEEP)
_add_command(export_page, KEEP, "export-page")
_add_command(store, KEEP)
app.add_typer(jobs, name="jobs", rich_help_panel=KEEP)


def _show_warning(message: Warning | str, category: type[Warning], *_where: Any) -> None:
    """Print a warning of this package as one line, without the line of code that it comes from.

    What libraries warn of (what they will drop, or do otherwise) is for those who write programs with them.
    """
    if issubclass(category, WorkbenchWarning):
        note(f"warning: {' '.join(str(message).split())}")


def main() -> None:
    """Run the command line; a mistake that a user can mend is one line, never a traceback."""
    adapt_streams()
    shorten_spins()
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
