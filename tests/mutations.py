"""Valid JSON documents, damaged in every way that files get damaged or are written by others: by seed, the same each time."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

Place = tuple[Any, Any]  # a list or an object, and the index or name of what stands there

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 3, 10**30, 2**63, 0.5, -2.5, 1e300, "", "x", "NaN", "é", "\x00", "0; import os", "a" * 3000),
    *([], {}, [1], ["x"], [[]], {"part": "none"}, {"part": "uniform", "kind": 1}, {"name": "rtn"}, {"version": 1}),
)
NAMES = ("", "name", "kind", "self", "cls", "part", "version", "bits=2) or print(", "__class__", "é", "a" * 300)


def places(value: Any, at: Place | None = None) -> Iterator[Place]:
    """Every place inside a document."""
    if at is not None:
        yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inner:
        yield from places(part, (value, key))


def put(draw: random.Random, owner: Any, key: Any) -> None:
    """Another value."""
    owner[key] = copy.deepcopy(draw.choice(ODD))


def remove(draw: random.Random, owner: Any, key: Any) -> None:
    """Nothing there."""
    del owner[key]


def add(draw: random.Random, owner: Any, key: Any) -> None:
    """One more name, or one more element."""
    if isinstance(owner, dict):
        owner[draw.choice(NAMES)] = copy.deepcopy(draw.choice(ODD))
    else:
        owner.append(copy.deepcopy(draw.choice([owner[key], *ODD])))


def rename(draw: random.Random, owner: Any, key: Any) -> None:
    """Another name, or another order."""
    if isinstance(owner, dict):
        owner[draw.choice([*NAMES, str(key).upper(), f"{key}x"])] = owner.pop(key)
    else:
        owner.insert(0, owner.pop(key))


def nest(draw: random.Random, owner: Any, key: Any) -> None:
    """The same, inside of something."""
    for _ in range(draw.choice([1, 1, 60, 300])):
        owner[key] = [owner[key]] if draw.random() < 0.5 else {"x": owner[key]}


def shift(draw: random.Random, owner: Any, key: Any) -> None:
    """Another number or word, of the right type."""
    value = owner[key]
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        put(draw, owner, key)
    elif isinstance(value, str):
        owner[key] = draw.choice([value[:-1], value + value, value.upper(), value + '"', value + "\n", value + "'); print(('"])
    else:
        owner[key] = draw.choice([-value, value + 1, value * 10**9, 0 * value, 10**90])


CHANGES: tuple[Callable[[random.Random, Any, Any], None], ...] = (put, put, remove, remove, add, rename, nest, shift, shift)


def mutated_value(document: Any, draw: random.Random) -> Any:
    """A copy with one to three changes; the root may be one of them."""
    root = [copy.deepcopy(document)]
    if draw.random() < 0.03:
        return draw.choice(ODD)
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        inside = list(places(root[0]))
        if not inside:
            break
        draw.choice(CHANGES)(draw, *draw.choice(inside))
    return root[0]


def broken_text(text: str, draw: random.Random) -> bytes:
    """What is no document at all, or one that a reader may stumble over."""
    digit = next((index for index, sign in enumerate(text) if sign.isdigit()), len(text))
    spot = draw.randrange(len(text) + 1)
    ways: tuple[Callable[[], str | bytes], ...] = (
        lambda: text[:spot],
        lambda: text[:spot] + draw.choice(['"', "{", "]", ",", "\\", "\x00", "\\ud800", "NaN"]) + text[spot:],
        lambda: text[:spot].encode() + b"\xff" + text[spot:].encode(),
        lambda: text.encode("utf-16"),
        lambda: "\ufeff" + text,
        lambda: "[" * draw.choice([101, 2000, 100_000]),
        lambda: '{"a":' * draw.choice([101, 2000, 100_000]),
        lambda: text[:digit] + "9" * draw.choice([101, 5000]) + text[digit:],
        lambda: text[:digit] + draw.choice(["1e999", "-Infinity", "NaN"]) + text[digit + 1 :],
        lambda: text.replace("{", '{"version": 1, "version": 1, ', 1),
        lambda: draw.choice(["", "null", "[]", "{}", "1", '"x"', "\x00" * 100, b"\xff\xfe"]),
    )
    content = draw.choice(ways)()
    return content if isinstance(content, bytes) else content.encode()


def mutated(document: Any, draw: random.Random) -> bytes:
    """A damaged document as it lies in a file."""
    if draw.random() < 0.25:
        return broken_text(json.dumps(document), draw)
    return json.dumps(mutated_value(document, draw), ensure_ascii=False).encode("utf-8", "surrogatepass")
