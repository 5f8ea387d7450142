"""Standard output and standard error: any encoding, closed pipes, full disks.

A Windows pipe often takes 256 signs, a server's log sometimes 128. What an encoding lacks is written in signs that each has.
"""

import codecs
import sys

import typer

from workbench.errors import OutputError
from workbench.outputs import explain_os_error

ASCII_SUBSTITUTES = {
    "−": "-",
    "–": "-",
    "—": "-",
    "‑": "-",
    "×": "x",
    "·": ".",
    "±": "+-",
    "→": "->",
    "↔": "<->",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "…": "...",
    "µ": "u",
    "²": "^2",
    "✗": "x",
    "✓": "ok",
    "‖": "||",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "␣": "_",
    "↵": "\\n",
    "⇥": "\\t",
    "\u00a0": " ",
    "\u202f": " ",
}
HANDLER = "workbench.plain"


def _write_plainly(error: UnicodeError) -> tuple[str, int]:
    """What is written in the place of signs that an encoding lacks: a likeness, or the sign's number as in Python."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    signs = error.object[error.start : error.end]
    return "".join(ASCII_SUBSTITUTES.get(sign) or sign.encode("ascii", "backslashreplace").decode() for sign in signs), error.end


def adapt_streams() -> None:
    """Let standard output and standard error take any text."""
    codecs.register_error(HANDLER, _write_plainly)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors=HANDLER)


def is_unicode() -> bool:
    """Whether standard output takes every sign as it is."""
    return codecs.lookup(getattr(sys.stdout, "encoding", None) or "utf-8").name.startswith("utf")


def write(text: str, end: str = "\n") -> None:
    """Print what a command answers; OutputError where it cannot be written."""
    try:
        typer.echo(f"{text}{end}", nl=False)
    except BrokenPipeError:  # whoever reads has seen enough: click ends the command without a word
        raise
    except OSError as error:
        raise OutputError(f"standard output cannot be written: {explain_os_error(error)}.") from error


def note(text: str) -> None:
    """Say something beside the answer, on standard error; where nobody can hear it, the work goes on."""
    try:
        typer.echo(text, err=True)
    except OSError:
        return
