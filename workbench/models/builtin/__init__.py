"""The built-in model: weights, tokenizer, original text, and the script that trained it."""

from pathlib import Path

BUILTIN = "builtin"
BUILTIN_FOLDER = Path(__file__).parent
