"""Two texts: the fork stands out in both, disagreement is a tint and a number, and nothing in a text is taken for HTML."""

import re

import pytest

from workbench.analysis.predictions.generation import Candidate, Writing, WrittenToken
from workbench.views.predictions import generation, kl_tint
from workbench.views.theme import DARK, LIGHT, Theme

STORY = ["Once", " upon", " a", " time"]


def tokens(pieces: list[str], kl: float = 0.0) -> tuple[WrittenToken, ...]:
    """Tokens whose ids follow their texts."""
    return tuple(WrittenToken(sum(map(ord, piece)), piece, kl, (Candidate(piece, 0.5, 0.25),)) for piece in pieces)


def written(original: list[str], quantized: list[str], *, done: bool = True) -> Writing:
    return Writing(tokens(original), tokens(quantized), done)


def test_the_forking_token_is_marked_in_both_texts() -> None:
    shown = generation.build_text_comparison("Hi.", written(STORY, ["Once", " in", " a"]))
    for side, fork in ((shown.original, " upon"), (shown.quantized, " in")):
        assert side.startswith('<span class="prompt">Hi.</span><span style=')
        assert side.count("<mark") == 1
        assert f'<mark class="fork" title="KL 0 nats, the first differing token">{fork}</mark>' in side
    assert shown.answer == "The first token agrees; token 2 is “␣upon” in the original and “␣in” in the quantized text."


def test_equal_texts_have_no_mark() -> None:
    shown = generation.build_text_comparison("Hi.", Writing(tokens(STORY, 0.5), tokens(STORY, 0.5), done=True))
    assert "<mark" not in shown.original + shown.quantized
    assert shown.answer == "All 4 tokens agree; the models disagree most at token 1, “Once”: KL 0.5 nats."


def test_a_model_beside_itself_disagrees_nowhere() -> None:
    said = generation.build_text_comparison("Hi.", written(STORY, STORY)).answer
    assert said == "All 4 tokens agree; both models predict exactly the same distribution at each of them."


def test_a_text_that_ends_earlier_ends_there() -> None:
    shown = generation.build_text_comparison("Hi.", written(STORY, STORY[:2]))
    assert "<mark" in shown.original
    assert "<mark" not in shown.quantized
    assert shown.answer == "The first 2 tokens agree; token 3 is “␣a” in the original and the end in the quantized text."


@pytest.mark.parametrize(
    ("original", "quantized", "said"),
    [
        pytest.param(STORY[:2], STORY[:2], "Writing: 2 tokens, and both agree so far.", id="no-fork-yet"),
        pytest.param(["Once"], ["In"], "The very first token differs; token 1 is “Once” in the original and “In”", id="fork"),
    ],
)
def test_while_writing_the_sentence_says_so(original: list[str], quantized: list[str], said: str) -> None:
    assert generation.build_text_comparison("Hi.", written(original, quantized, done=False)).answer.startswith(said)


def test_models_that_write_nothing_are_told() -> None:
    assert generation.describe_agreement(written([], [])) == "Both models end the text at once."


def test_the_chosen_token_is_outlined_in_both_texts() -> None:
    shown = generation.build_text_comparison("Hi.", written(STORY, STORY), 2)
    for side in (shown.original, shown.quantized):
        assert side.count('class="chosen"') == 1
        assert '<span class="chosen"' in side.split(" upon")[1]


def test_tokens_that_can_be_chosen_are_buttons_with_a_name() -> None:
    shown = generation.build_text_comparison("Hi.", written(["Once", "\n\n", ' "a'], ["Once", " in"]), 2, choosable=True)
    assert re.findall(r'data-place="(\d)" aria-label="([^"]*)" aria-pressed="(\w+)" tabindex="(-?\d)"', shown.original) == [
        ("0", "token 1, “Once”, KL 0 nats", "false", "-1"),
        ("1", "token 2, “↵↵”, KL 0 nats", "false", "-1"),
        ("2", "token 3, “␣&quot;a”, KL 0 nats", "true", "0"),
    ]
    assert '</button><br><br><button type="button" data-place="1"' in shown.original
    assert re.findall('tabindex="(-?1|0)"', shown.quantized) == ["-1", "0"], "the fork, where the chosen one is beyond the text"


def test_markup_in_prompt_and_tokens_is_text() -> None:
    shown = generation.build_text_comparison("<script>1</script>", written(["<b>", "&"], ["<i>", "&"]))
    assert "<script>" not in shown.original
    assert "&lt;b&gt;" in shown.original
    assert "&lt;i&gt;" in shown.quantized
    assert "&amp;" in shown.original


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_the_tint_grows_with_kl_and_never_covers_the_text(theme: Theme) -> None:
    opacity = [float(kl_tint.compute_kl_tint(kl, theme).rstrip(")").split(",")[-1]) for kl in (0.0, 0.1, 0.7, 5.0, 50.0)]
    assert opacity[0] == 0
    assert opacity == sorted(opacity)
    assert opacity[-1] == kl_tint.STRONGEST


def test_the_table_shows_every_token_even_spaces_and_breaks() -> None:
    table = generation.build_text_comparison("", written(["\n", " a"], ["\n"])).table
    assert table["original"].tolist() == ["“↵”", "“␣a”"]
    assert table["quantized"].tolist() == ["“↵”", ""]
    assert generation.build_text_comparison("", written([], [])).table.empty


def test_divergence_is_drawn_for_both_texts_with_the_fork_between() -> None:
    writing = Writing(tokens(STORY, 0.5), tokens(["Once", " in"], 2.0), done=True)
    figure = generation.draw_token_kl(writing, 3)
    original, quantized = figure.plot["data"]
    assert original["y"] == [0.5] * 4
    assert quantized["y"] == [2.0, 2.0, None, None]
    assert [edge == LIGHT.accent for edge in original["marker"]["line"]["color"]] == [False, False, False, True]
    assert [shape["x0"] for shape in figure.plot["layout"]["shapes"]] == [2]
    assert "the mean KL is 0.5 nats per token" in figure.answer
    assert "at token 2, the texts differ" in figure.answer
    assert figure.table["kl_original"].tolist() == [0.5] * 4


def test_agreeing_texts_have_no_fork_line() -> None:
    assert generation.draw_token_kl(written(STORY, STORY)).plot["layout"]["shapes"] == []


@pytest.mark.parametrize(
    ("second", "said"),
    [
        pytest.param(Candidate(" b", 0.25, 0.5), "top-1 is “␣a” for the original and “␣b” for the quantized model", id="parted"),
        pytest.param(Candidate(" b", 0.25, 0.125), "“␣a” is top-1 for both models", id="agreed"),
    ],
)
def test_expectations_are_two_bars_a_candidate(second: Candidate, said: str) -> None:
    token = WrittenToken(1, " a", 0.125, (Candidate(" a", 0.5, 0.25), second))
    figure = generation.draw_likeliest_tokens(token, 4, "quantized")
    assert [trace["x"] for trace in figure.plot["data"]] == [[0.5, 0.25], [0.25, second.quantized]]
    assert figure.plot["layout"]["yaxis"]["ticktext"] == ["“␣a”", "“␣b”"]
    assert said in figure.answer
    assert figure.answer.startswith("At token 5 of the quantized text (“␣a”)")
    assert figure.answer.endswith("KL 0.125 nats.")
    assert figure.table["p_original"].tolist() == [0.5, 0.25]
