"""A session as one file: its model's name and fingerprint and its whole history. Results are made again, not stored."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.atomic import write_file
from workbench.errors import WorkbenchError
from workbench.session.history import History, Kind

if TYPE_CHECKING:
    from workbench.session.session import Session

FORMAT, VERSION = "workbench session", 1


def to_json(session: "Session") -> str:
    """The session as indented JSON text."""
    model = {"source": str(session.model.source), "fingerprint": session.model.fingerprint}
    document = {"format": FORMAT, "version": VERSION, "model": model, "history": session.history.to_dict()}
    return json.dumps(document, indent=1, ensure_ascii=False)


def from_json(session: "Session", text: str) -> None:
    """Take up a saved session in place of this one's history; nothing changes where it cannot be read."""
    try:
        document = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise WorkbenchError(f"the file is no saved session: it is not JSON ({error}).") from None
    if not isinstance(document, Mapping) or document.get("format") != FORMAT:
        raise WorkbenchError(f"the file is no saved session: its format is not {FORMAT!r}; save one in the History tab.")
    if document.get("version") != VERSION:
        raise WorkbenchError(f"session version {document.get('version')!r} is not known; this workbench reads version {VERSION}.")
    if missing := [name for name in ("model", "history") if not isinstance(document.get(name), Mapping)]:
        raise WorkbenchError(f"the saved session lacks {', '.join(missing)}; save it again.")
    model: Mapping[str, Any] = document["model"]
    if model.get("fingerprint") != session.model.fingerprint:
        raise WorkbenchError(f"the session was saved on the model {model.get('source')}; open that one, with the same weights.")
    try:
        history = History.from_dict(document["history"])
    except KeyError as error:
        raise WorkbenchError(f"the saved history lacks {error.args[0]}; save it again.") from None
    for step in history.steps:
        session.check_choice(step.choice)
    session.history = history


def save(session: "Session", path: str | Path) -> Path:
    """Write the session to a file, whole or not at all."""
    write_file(path, to_json(session))
    return Path(path)


def cell(session: "Session") -> str:
    """Python that takes the same steps again, from the first to the current one, and shows the explorer."""
    steps = [session.history.steps[number] for number in session.history.path(session.history.at)]
    first = steps[0].choice
    lines = [
        "import workbench as wb",
        "from workbench.jobs import Job",
        "from workbench.session import Session",
        "",
        f"session = Session({session.model.code()}, recipe={first.recipe.code()})",
        *_moved(session.model.layer_names[0], first.layer),
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


def _moved(usual: str, layer: str) -> list[str]:
    return [] if layer == usual else [f"session.select({layer!r})"]
