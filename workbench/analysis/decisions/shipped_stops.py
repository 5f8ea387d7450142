"""The stops of the built-in model's slider that come with the package, so that it works at once: saved models and their figures.

`python -m tests.readme.stops` writes them. Speed is not among the figures: it is that of the machine at hand.
"""

from functools import cache
from pathlib import Path
from typing import Any

from workbench.errors import ArtifactError
from workbench.json_value import JsonValue, read
from workbench.models.builtin import BUILTIN_FOLDER
from workbench.models.text import Text

SHIPPED_FOLDER = BUILTIN_FOLDER / "stops"
INDEX_FILE = "stops.json"


def find_folder(key: str) -> Path | None:
    """The folder of the shipped stop with this key (see `Squeeze.key`), or None."""
    stop = _read_index(SHIPPED_FOLDER).get(key)
    name = None if stop is None else stop.find("folder")
    return None if name is None else SHIPPED_FOLDER / name.as_text()


def read_facts(key: str, evaluation: Text) -> dict[str, Any] | None:
    """The figures of the shipped stop with this key on a text, or None where they were not measured."""
    stop = _read_index(SHIPPED_FOLDER).get(key)
    if stop is None or stop.get("evaluation", "the text it was measured on").as_text() != evaluation.fingerprint:
        return None
    return {name: value.as_scalar() for name, value in stop.get("facts", "the figures of the stop").items()}


@cache
def _read_index(folder: Path) -> dict[str, JsonValue]:
    """The shipped stops by key; none where there is no index."""
    path = folder / INDEX_FILE
    if not path.is_file():
        return {}
    return dict(read(path, f"the index {path}", ArtifactError).items())
