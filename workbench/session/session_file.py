"""A session as one file: its model's name and fingerprint and its whole history. Results are computed again, not stored."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.atomic import write_file
from workbench.errors import WorkbenchError
from workbench.json_value import parse, shorten_value
from workbench.session.history import SAVE_SESSION_ADVICE, History, Kind

if TYPE_CHECKING:
    from workbench.session.session import Session

FORMAT, VERSION = "workbench session", 1


def encode_session(session: "Session") -> str:
    """The session as indented JSON text."""
    model = {"source": str(session.model.source), "fingerprint": session.model.fingerprint}
    document = {"format": FORMAT, "version": VERSION, "model": model, "history": session.history.to_dict()}
    return json.dumps(document, indent=1, ensure_ascii=False)


def restore_session(session: "Session", content: bytes | str) -> None:
    """Take up a saved session in place of this one's history; nothing changes where it cannot be read."""
    value = parse(content, "the saved session")
    fields = value.as_object()
    if fields.get("format") != FORMAT:
        raise WorkbenchError(f"the file is not a saved session: its format is not {FORMAT!r}; save one in the History tab.")
    value.check_version("session", VERSION)
    model = value.get("model", SAVE_SESSION_ADVICE)
    source, fingerprint = (
        model.get("source", SAVE_SESSION_ADVICE).as_text(),
        model.get("fingerprint", SAVE_SESSION_ADVICE).as_text(),
    )
    if fingerprint != session.model.fingerprint:
        raise WorkbenchError(
            f"the session was saved with the model {shorten_value(source)}; open that model, with the same weights."
        )
    history = History.read(value.get("history", SAVE_SESSION_ADVICE))
    for step in history.steps:
        session.check_choice(step.choice)
    session.history = history


def save(session: "Session", path: str | Path) -> Path:
    """Write the session to a file, whole or not at all."""
    write_file(path, encode_session(session))
    return Path(path)


def write_session_code(session: "Session") -> str:
    """Python that takes the same steps again, from the first to the current one, and shows the explorer."""
    steps = [session.history.steps[number] for number in session.history.path(session.history.at)]
    first = steps[0].choice
    lines = [
        "import workbench as wb",
        "from workbench.jobs import Job",
        "from workbench.session import Session",
        "",
        f"session = Session({session.model.code()}, recipe={first.recipe.code()})",
        *_write_selection(session.model.layer_names[0], first.layer),
    ]
    for step in steps[1:]:
        choice = step.choice
        match step.kind:
            case Kind.SELECT:
                lines.append(f"session.select({choice.layer!r})")
            case Kind.USE:
                lines.append(f"session.use({choice.recipe.code()})")
            case Kind.ASK:
                lines.append(f"session.ask({choice.prompt!r})")
            case Kind.MARK:
                marks = ", ".join(f"{name}={list(marks)!r}" for name, marks in vars(choice.selection).items())
                lines.append(f"session.mark({marks})")
            case Kind.RESTORE | Kind.OPEN:
                lines.append(f"session.restore({{'version': 1, **{choice.to_dict()!r}}})")
            case Kind.QUANTIZE:
                lines.append("Job(session.quantize_steps).run_here().result()")
            case Kind.QUANTIZE_MODEL:
                lines.append("Job(session.quantize_model_steps).run_here().result()")
    return "\n".join([*lines, "wb.Explorer(session)"])


def _write_selection(usual: str, layer: str) -> list[str]:
    return [] if layer == usual else [f"session.select({layer!r})"]
