"""Single tokens in sentences, labels and tables, with signs for what cannot be seen."""

SIGNS = str.maketrans({" ": "␣", "\n": "↵", "\t": "⇥"})


def quote_token(token: object) -> str:
    """A token in quotes, a space as ␣ and a line break as ↵, so that “␣the” and “the” are told apart; nothing where a table says
    that the text had ended."""
    return f"“{token.translate(SIGNS)}”" if isinstance(token, str) else ""
