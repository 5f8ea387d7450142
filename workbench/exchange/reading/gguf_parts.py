"""A model in several GGUF files, named NAME-00001-of-00003.gguf: the first holds the metadata, each holds some of the tensors."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from workbench.errors import ModelError
from workbench.exchange.reading.gguf_file import GgufFile, read_gguf

PART = re.compile(r"(?P<name>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"  # in the metadata


def list_parts(path: Path) -> tuple[Path, ...]:
    """All files of the model that a file is a part of, by its name; the file alone where it is named as no part."""
    match = PART.fullmatch(path.name)
    if match is None:
        return (path,)
    count = int(match["count"])
    return tuple(path.with_name(f"{match['name']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1))


def find_first_part(files: Sequence[Path]) -> Path | None:
    """The first of some files where they are the parts of one model, all of them or not; None where they are others."""
    parts = list_parts(files[0]) if files else ()
    return parts[0] if len(parts) > 1 and set(files) <= set(parts) else None


def read_gguf_parts(path: Path) -> GgufFile:
    """Read the headers of a GGUF file and, where it is a part of a model, of all other parts.

    Args:
        path: The file, or any of the parts.

    Returns:
        The metadata of the first part, and the location of each tensor.

    Raises:
        ModelError: In one sentence, where a file is damaged, a part is missing, or the parts are not of one model.
    """
    header = read_gguf(path)
    count = header.metadata.get(COUNT, 1)
    if count == 1:
        return header
    parts = list_parts(path)
    if len(parts) != count:
        raise ModelError(
            f"{path} is one of {count} files of a model, which are found by their names: give it the name that it was published "
            f"under, such as NAME-00001-of-{count:05}.gguf, beside the others."
        )
    if missing := [part for part in parts if not part.is_file()]:
        raise ModelError(
            f"{path} is one of {count} files of a model, of which {missing[0].name} is missing; download it into the same folder."
        )
    return _join_parts([header if part == path else read_gguf(part) for part in parts])


def _join_parts(headers: Sequence[GgufFile]) -> GgufFile:
    """The headers of all parts as one."""
    first = headers[0]
    for number, header in enumerate(headers):
        facts = [header.metadata.get(name) for name in (NUMBER, COUNT)]
        if facts != [number, len(headers)]:
            raise ModelError(
                f"{header.path} says that it is part {facts[0]} (from 0) of {facts[1]}, but is named as part {number} of "
                f"{len(headers)}; download it again."
            )
    tensors = {name: tensor for header in headers for name, tensor in header.tensors.items()}
    count, announced = sum(len(header.tensors) for header in headers), first.metadata.get(TENSORS)
    if len(tensors) != count or announced not in (None, count):
        raise ModelError(
            f"the {len(headers)} files from {first.path} on hold {count} tensors, {len(tensors)} of them different, but "
            f"announce {announced}; they are not of one model: download them again."
        )
    return replace(first, tensors=tensors, parts=tuple(header.path for header in headers))
