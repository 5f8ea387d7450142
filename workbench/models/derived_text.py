"""Texts derived from another one, for calibration on something clearly different; their names say so."""

import random
import re
from collections.abc import Callable

from workbench.errors import ModelError
from workbench.models.text import Text
from workbench.seeds import check_seed

WORD_PATTERN = re.compile(r"[A-Za-z]+")
LETTERS = "abcdefghijklmnopqrstuvwxyz     .,"


def _shuffle_words(document: str, draw: random.Random) -> str:
    """Its words in a drawn order: the same tokens, no sentence."""
    words = document.split()
    draw.shuffle(words)
    return " ".join(words)


def _generate_program(document: str, draw: random.Random) -> str:
    """Lines that look like a program, named by its words."""
    words = [word.lower() for word in WORD_PATTERN.findall(document)] or ["x"]
    lines = []
    for _ in range(max(1, len(words) // 8)):
        name, first, second, third = (draw.choice(words) for _ in range(4))
        lines += [f"def {name}_{first}({second}, {third}):", f"    return {second}[{draw.randrange(10)}] + {third}({first})", ""]
    return "\n".join(lines)


def _generate_noise(document: str, draw: random.Random) -> str:
    """As many letters, drawn evenly: no words at all."""
    return "".join(draw.choice(LETTERS) for _ in document)


DERIVED: dict[str, Callable[[str, random.Random], str]] = {
    "shuffled words": _shuffle_words,
    "program-like": _generate_program,
    "random letters": _generate_noise,
}


def derive(kind: str, text: Text, seed: int = 0) -> Text:
    """`text` made into another kind of text, document by document, drawn by `seed`; ModelError for an unknown kind.

    Its name says what was done, so that nobody takes it for real text.
    """
    if kind not in DERIVED:
        raise ModelError(f"text cannot be derived as {kind!r}; use {', '.join(map(repr, DERIVED))}.")
    draw = random.Random(check_seed(seed, ModelError))
    return Text(f"{kind} (derived from {text.name})", tuple(DERIVED[kind](document, draw) for document in text.documents))
