"""Text for calibration and evaluation: the built-in collections, or a file."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from workbench.errors import ModelError

SEPARATOR = "<|endoftext|>"
FOLDER = Path(__file__).parent / "builtin" / "text"
EVALUATION_TEXTS = ("evaluation", "written", "prose")  # stories by our hand, by the built-in model, and prose that is no story
SHIPPED_TEXTS = ("calibration", *EVALUATION_TEXTS)


@dataclass(frozen=True)
class Text:
    """Named documents, each of which is read from its own beginning; `a + b` holds the documents of both.

    Args:
        name: What tables and figures call it.
        documents: The documents.

    Raises:
        ModelError: Where no document holds anything but white space.

    Example:
        >>> import workbench as wb
        >>> wb.measures.Text("mine", ("Once upon a time.", "The end."))
        <Text 'mine': 2 documents, 25 characters>
    """

    name: str
    documents: tuple[str, ...]

    def __post_init__(self) -> None:
        if not any(document.strip() for document in self.documents):
            raise ModelError(f"text {self.name!r} is empty; give at least one document.")

    def __repr__(self) -> str:
        size = f"{len(self.documents)} document{'' if len(self.documents) == 1 else 's'}"
        return f"<Text {self.name!r}: {size}, {sum(map(len, self.documents)):,} characters>"

    def __add__(self, other: "Text") -> "Text":
        return Text(f"{self.name} + {other.name}", self.documents + other.documents)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with any character and with any boundary between documents."""
        return hashlib.sha256(json.dumps(self.documents).encode()).hexdigest()[:16]


def text(source: str | Path) -> Text:
    """Read a text to calibrate on or to measure with.

    Args:
        source: The built-in "calibration" or "evaluation" stories, "written" (stories that the built-in model wrote itself),
            "prose" (plain English that is no story), or the path of a UTF-8 file whose documents are separated by
            `<|endoftext|>`.

    Returns:
        Named documents; texts add up with `+`.

    Raises:
        ModelError: Where there is no such file, where it is not UTF-8, or where it is empty.

    Example:
        >>> import workbench as wb
        >>> wb.text("evaluation")
        <Text 'evaluation': 30 documents, 24,603 characters>
    """
    builtin = str(source) in SHIPPED_TEXTS
    path = FOLDER / f"{source}.txt" if builtin else Path(source).expanduser()
    if not path.is_file():
        names = ", ".join(map(repr, SHIPPED_TEXTS))
        raise ModelError(f"there is no text file {str(source)!r}; use {names} or the path of a text file.")
    try:
        content = path.read_text(encoding="utf-8-sig")  # a byte order mark, as Windows writes it, is no text
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8.") from error
    documents = tuple(document.strip() for document in content.split(SEPARATOR) if document.strip())
    return Text(str(source) if builtin else path.name, documents)
