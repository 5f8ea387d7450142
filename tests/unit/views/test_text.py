"""Two texts: the fork is the first token that differs, whatever the lengths, and nothing in a text is taken for HTML."""

import pytest

from workbench.views import text

STORY = ["Once", " upon", " a", " time"]


@pytest.mark.parametrize(
    ("original", "quantized", "at"),
    [
        pytest.param(STORY, STORY, None, id="equal"),
        pytest.param(STORY, ["Once", " upon", " the"], 2, id="third"),
        pytest.param(STORY, ["Two", " upon"], 0, id="first"),
        pytest.param(STORY, STORY[:3], 3, id="one-ends-earlier"),
        pytest.param([], STORY, 0, id="nothing-written"),
        pytest.param([], [], None, id="both-empty"),
    ],
)
def test_the_fork_is_the_first_difference(original: list[str], quantized: list[str], at: int | None) -> None:
    assert text.fork(original, quantized) == at
    assert text.fork(quantized, original) == at


def test_the_forking_token_is_marked_in_both_texts() -> None:
    shown = text.side_by_side("Hi.", STORY, ["Once", " in", " a"])
    assert shown.original == (
        '<span class="prompt">Hi.</span>Once<mark class="fork" title="first differing token"> upon</mark>'
        '<span class="after"> a time</span>'
    )
    assert '<mark class="fork" title="first differing token"> in</mark><span class="after"> a</span>' in shown.quantized
    assert shown.answer == "The first token agrees; token 2 is “ upon” in the original and “ in” in the quantized text."


def test_equal_texts_have_no_mark() -> None:
    shown = text.side_by_side("Hi.", STORY, STORY)
    assert "<mark" not in shown.original + shown.quantized
    assert shown.answer == "All 4 tokens agree."


def test_a_text_that_ends_earlier_ends_there() -> None:
    shown = text.side_by_side("Hi.", STORY, STORY[:2])
    assert "<mark" in shown.original
    assert "<mark" not in shown.quantized
    assert shown.answer == "The first 2 tokens agree; token 3 is “ a” in the original and the end in the quantized text."


def test_while_writing_a_text_that_lags_behind_is_no_fork() -> None:
    shown = text.side_by_side("Hi.", STORY, STORY[:2], done=False)
    assert "<mark" not in shown.original
    assert shown.answer == "Writing: 4 tokens of the original, 2 of the quantized model."
    assert "<mark" in text.side_by_side("Hi.", STORY, ["Once", " in"], done=False).original


def test_markup_in_prompt_and_tokens_is_text() -> None:
    shown = text.side_by_side("<script>1</script>", ["<b>", "&"], ["<i>", "&"])
    assert "<script>" not in shown.original
    assert "&lt;b&gt;" in shown.original
    assert "&lt;i&gt;" in shown.quantized
    assert "&amp;" in shown.original


def test_the_table_shows_every_token_even_spaces_and_breaks() -> None:
    table = text.side_by_side("", ["\n", " a"], ["\n"]).table
    assert table.to_dict("list") == {"position": [1, 2], "original": ["“↵”", "“ a”"], "quantized": ["“↵”", ""]}
    assert text.side_by_side("", [], []).table.empty
