"""Validation of foreign JSON: text to values with limits, and values to typed fields.

A file, an upload or an address may hold anything. Whatever cannot be taken is one sentence that says which document, which field,
what stands there and what is allowed; it is raised as the kind of `WorkbenchError` that the caller names.
"""

import json
import math
import re
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

from workbench.errors import WorkbenchError

T = TypeVar("T")

MAX_JSON_BYTES = 1 << 26  # a plan with a rule for each of 50,000 experts takes half of it
LEVELS = 100  # of objects and lists inside each other; Python's own reader ends at about a thousand
NAME_BYTES = 255  # of a file, as most systems allow
MAX_NUMBER_DIGITS = 100  # of one number; a float holds whatever has so few
MAX_SIZE = 2**63 - 1  # what torch takes as a size or a count
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# strings with their escapes, and everything else that opens and closes nothing; possessive throughout, so that no text is slow
FLAT = re.compile(r'(?:"[^"\\]*+(?:\\.[^"\\]*+)*+"?+|[^\[\]{}"]++)++', re.DOTALL)
DEPTH_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}
LONGEST_SHOWN = 4096  # bits of a whole number in a sentence
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")


class Brief(reprlib.Repr):
    """A wrong value in a sentence, also a whole number of more digits than Python writes out."""

    def repr_int(self, x: int, level: int) -> str:
        """The number, or how long it is."""
        return super().repr_int(x, level) if x.bit_length() <= LONGEST_SHOWN else f"a number of {x.bit_length():,} bits"


BRIEF = Brief()
BRIEF.maxlevel, BRIEF.maxdict, BRIEF.maxstring = 2, 3, 60


@dataclass(frozen=True)
class JsonValue:
    """A JSON value with the document it is from, where it stands there, and the kind of error that says what is wrong with it."""

    value: Any
    document: str
    error: type[WorkbenchError] = WorkbenchError
    location: str = ""

    def __str__(self) -> str:
        return f"{self.document}: {self.location}" if self.location else self.document

    def wrong(self, allowed: str) -> WorkbenchError:
        """The error that says what stands here and what is allowed."""
        plain = self.value is None or isinstance(self.value, bool)
        return self.error(f"{self} is {json.dumps(self.value) if plain else shorten_value(self.value)}; it must be {allowed}.")

    def find(self, name: str) -> "JsonValue | None":
        """A field of this object, or None where it has none of this name."""
        fields = self.as_object()
        location = f"{self.location}.{name}" if self.location else name
        return replace(self, value=fields[name], location=location) if name in fields else None

    def get(self, name: str, advice: str = "") -> "JsonValue":
        """A field of this object that must be there; `advice` ends the sentence that says it is not."""
        if (field := self.find(name)) is None:
            raise self.error(f"{self} has no {name!r}{'; ' + advice if advice else ''}.")
        return field

    def check_names(self, *names: str) -> None:
        """Refuse fields of other names: one that is misspelled would be left out in silence."""
        for name in self.as_object():
            if name not in names:
                raise self.error(f"{self} has the unknown field {shorten_value(name)}; its fields are {', '.join(names)}.")

    def check_version(self, what: str, *versions: int) -> None:
        """Refuse documents of a version that cannot be read here."""
        version = self.find("version")
        if version is None or type(version.value) is not int or version.value not in versions:
            number = "without a version" if version is None else f"version {shorten_value(version.value)}"
            start, reads = f"{self}: " if self.location else "", " and ".join(map(str, versions))
            raise self.error(f"{start}{what} {number} is not known here; this workbench reads version {reads}.")

    def items(self) -> list[tuple[str, "JsonValue"]]:
        """The fields of this object by their names."""
        start = f"{self.location}." if self.location else ""
        return [(name, replace(self, value=value, location=start + name)) for name, value in self.as_object().items()]

    def values(self) -> list["JsonValue"]:
        """The values of this object's fields."""
        return [value for _, value in self.items()]

    def elements(self) -> list["JsonValue"]:
        """The elements of this list."""
        return [replace(self, value=value, location=f"{self.location}[{index}]") for index, value in enumerate(self.as_list())]

    def as_object(self) -> Mapping[str, Any]:
        """The value as an object."""
        if not isinstance(self.value, Mapping):
            raise self.wrong("an object")
        return self.value

    def as_list(self) -> Sequence[Any]:
        """The value as a list."""
        if not isinstance(self.value, list | tuple):
            raise self.wrong("a list")
        return self.value

    def as_text(self) -> str:
        """The value as text."""
        if not isinstance(self.value, str):
            raise self.wrong("text")
        return self.value

    def as_choice(self, names: Sequence[str]) -> str:
        """The value as one of these names."""
        if not isinstance(self.value, str) or self.value not in names:
            raise self.wrong(f"one of {', '.join(names)}")
        return self.value

    def as_truth(self) -> bool:
        """The value as true or false."""
        if not isinstance(self.value, bool):
            raise self.wrong("true or false")
        return self.value

    def as_whole(self, low: int = 0, high: int = MAX_SIZE) -> int:
        """The value as a whole number from `low` to `high`."""
        if not isinstance(self.value, int) or isinstance(self.value, bool) or not low <= self.value <= high:
            raise self.wrong(f"a whole number from {low} to {high}" if high < MAX_SIZE else f"a whole number from {low}")
        return self.value

    def as_number(self, low: float = -math.inf, high: float = math.inf) -> float:
        """The value as a number from `low` to `high`."""
        # NaN, which a Python caller may give, is in no range
        if not isinstance(self.value, int | float) or isinstance(self.value, bool) or not low <= self.value <= high:
            limits = "" if low == -math.inf else f" from {low:g}" + ("" if high == math.inf else f" to {high:g}")
            raise self.wrong(f"a number{limits}")
        return self.value

    def as_scalar(self) -> str | bool | int | float:
        """The value as text, true or false, or a number: what a setting can be."""
        if not isinstance(self.value, str | int | float):
            raise self.wrong("text, a number, true or false")
        return self.value

    def as_optional(self, read: Callable[["JsonValue"], T]) -> T | None:
        """None for null, else what `read` makes of the value."""
        return None if self.value is None else read(self)

    def texts(self) -> list[str]:
        """The value as a list of texts."""
        return [element.as_text() for element in self.elements()]


def wrap_value(data: Any, document: str, error: type[WorkbenchError] = WorkbenchError) -> JsonValue:
    """What was read already, or plain values of a Python caller as if they had been."""
    return data if isinstance(data, JsonValue) else JsonValue(data, document, error)


def read(
    path: Path,
    document: str = "",
    error: type[WorkbenchError] = WorkbenchError,
    *,
    limit: int = MAX_JSON_BYTES,
    foreign: bool = False,
) -> JsonValue:
    """The JSON document in a file, as `parse` takes it; it is called by its path unless `document` names it."""
    document = document or str(path)
    return parse(read_content(path, document, error, limit=limit), document, error, limit=limit, foreign=foreign)


def read_content(
    path: Path, document: str, error: type[WorkbenchError] = WorkbenchError, *, limit: int = MAX_JSON_BYTES
) -> bytes:
    """A file's bytes, one more than `limit` of them at most."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as problem:
        raise error(f"{document} cannot be read ({problem.strerror}); check the path and its permissions.") from None


def parse(
    content: bytes | str,
    document: str,
    error: type[WorkbenchError] = WorkbenchError,
    *,
    limit: int = MAX_JSON_BYTES,
    foreign: bool = False,
) -> JsonValue:
    """A JSON text as a value; `document` names it in sentences, `error` is the kind of error that they are.

    `foreign` takes what other libraries write and JSON has not: NaN, infinities, and a name twice, of which the last counts.
    """
    text = decode(content, document, error, limit=limit)
    _check_depth(text, document, error)

    def parse_int(digits: str) -> int:
        _check_digits(digits, document, error)
        return int(digits)

    def number(digits: str) -> float:
        _check_digits(digits, document, error)
        value = float(digits)
        if math.isinf(value) and not foreign:
            raise error(f"{document} holds the number {digits}, which is out of range for a float; write a smaller one.")
        return value

    def constant(name: str) -> float:
        if not foreign:
            raise error(f"{document} holds {name}, which is not valid JSON; write a number or null.")
        return float(name.replace("Infinity", "inf"))

    def fields(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        named = dict(pairs)
        if len(named) < len(pairs) and not foreign:
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise error(f"{document} has {shorten_value(twice)} twice in one object; write it once.")
        return named

    try:
        value = json.loads(text, object_pairs_hook=fields, parse_int=parse_int, parse_float=number, parse_constant=constant)
    except json.JSONDecodeError as problem:
        raise error(f"{document} is not JSON: {problem}.") from None
    if SURROGATE.search(text):
        _check_characters(value, document, error)
    return JsonValue(value, document, error)


def decode(content: bytes | str, document: str, error: type[WorkbenchError], *, limit: int = MAX_JSON_BYTES) -> str:
    """Text from UTF-8 bytes of a size that is read."""
    if len(content) > limit:
        raise error(f"{document} has more than {limit:,} bytes; only smaller ones are read.")
    if isinstance(content, str):
        if content.startswith("\ufeff"):
            raise error(f"{document} begins with a byte order mark; save it as UTF-8 without one.")
        return content
    if content.startswith(BYTE_ORDER_MARK):
        raise error(f"{document} begins with a byte order mark; save it as UTF-8 without one.")
    try:
        return content.decode()
    except UnicodeDecodeError as problem:
        raise error(f"{document} is not UTF-8 text (byte {problem.start}); save it as UTF-8.") from None


def _check_depth(text: str, document: str, error: type[WorkbenchError]) -> None:
    """Refuse objects and lists that lie deeper inside each other than any document here, before the reader descends."""
    levels = max(accumulate(DEPTH_STEP[bracket] for bracket in FLAT.sub("", text)), default=0)
    if levels > LEVELS:
        raise error(f"{document} is {levels:,} levels deep; at most {LEVELS} are read.")


def _check_digits(digits: str, document: str, error: type[WorkbenchError]) -> None:
    """Refuse numbers that are longer than any quantity here."""
    if len(digits) > MAX_NUMBER_DIGITS:
        raise error(f"{document} holds a number of {len(digits):,} digits; at most {MAX_NUMBER_DIGITS} are read.")


def _check_characters(value: Any, document: str, error: type[WorkbenchError]) -> None:
    """Refuse halves of surrogate pairs, which JSON can escape and no file or console can hold."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as problem:
        half = f"\\u{ord(problem.object[problem.start]):04x}"
        raise error(f"{document} holds {half}, half of a surrogate pair, which is not a character; write it as UTF-8.") from None


def is_file_name(name: str) -> bool:
    """Whether a name from a document can be that of a file in the document's own folder."""
    return bool(name) and Path(name).name == name and "\0" not in name and len(name.encode()) <= NAME_BYTES


def shorten_value(value: Any) -> str:
    """A value short enough for a sentence."""
    return BRIEF.repr(value)
