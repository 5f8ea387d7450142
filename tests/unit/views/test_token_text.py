"""Tokens in quotes: what cannot be seen has a sign, and no two tokens look alike because of a space."""

import pytest

from workbench.views.token_text import quote_token


@pytest.mark.parametrize(
    ("token", "quoted"),
    [("there", "“there”"), (" there", "“␣there”"), ("\n\n", "“↵↵”"), ("\t", "“⇥”"), ("", "“”"), (None, ""), (float("nan"), "")],
)
def test_spaces_and_line_breaks_are_seen(token: object, quoted: str) -> None:
    assert quote_token(token) == quoted
