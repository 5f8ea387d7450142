"""GrowingText: pieces make the text of all tokens, whatever is left behind on the way."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from tests.tiny_models import BUILTIN_FOLDER
from workbench.models.architecture import load_tokenizer
from workbench.models.growing_text import KEPT_TOKENS, MOST_TOKENS, GrowingText
from workbench.models.language_model import LanguageModel

LM = LanguageModel(nn.Identity(), load_tokenizer(BUILTIN_FOLDER), "tokenizer alone")


@given(st.lists(st.integers(0, 511), max_size=20), st.lists(st.integers(0, 511), max_size=400))
def test_pieces_are_the_text_of_all_tokens(first: list[int], more: list[int]) -> None:
    assume(LM.settled(first) == LM.decode(first))  # a prompt is whole characters
    text = GrowingText(first, LM.decode, LM.settled)
    pieces = [text.add(token) for token in more]
    assert LM.decode(first) + "".join(pieces) + text.finish() == LM.decode(first + more)


@given(st.text(max_size=300))
def test_so_are_those_of_real_text(written: str) -> None:
    tokens = list(LM.tokenizer(written)["input_ids"])
    text = GrowingText(tokens[:1], LM.decode, LM.settled)
    assert LM.decode(tokens[:1]) + "".join(text.add(token) for token in tokens[1:]) + text.finish() == LM.decode(tokens)


def test_few_tokens_are_decoded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []

    def decode(ids: list[int]) -> str:
        lengths.append(len(ids))
        return LM.decode(ids)

    tokens = list(LM.tokenizer("There was a little dog who liked to run. " * 40)["input_ids"])
    text = GrowingText(tokens[:3], decode, LM.settled)
    pieces = [text.add(token) for token in tokens[3:]]
    assert LM.decode(tokens[:3]) + "".join(pieces) + text.finish() == LM.decode(tokens)
    assert len(tokens) > 3 * MOST_TOKENS
    assert max(lengths) <= MOST_TOKENS + KEPT_TOKENS
