"""LanguageModel: ids, logits and text that arrives in pieces."""

import threading
from pathlib import Path

import pytest
import torch

from tests.tiny_models import CAUSAL
from workbench.errors import ModelError
from workbench.models import open_model
from workbench.models.language_model import LanguageModel


@pytest.fixture
def lm(tiny_models: dict[str, Path]) -> LanguageModel:
    return open_model(tiny_models["llama"]).language_model()


class Script(torch.nn.Module):
    """A module that writes given tokens, whatever it reads."""

    def __init__(self, tokens: list[int], config: object) -> None:
        super().__init__()
        self.tokens, self.config = iter(tokens), config

    def forward(self, ids: torch.Tensor, past_key_values: object = None, use_cache: bool = False) -> object:
        logits = torch.full((1, ids.shape[1], 512), -9.0)
        logits[0, -1, next(self.tokens)] = 9.0
        return type("Output", (), {"logits": logits, "past_key_values": None})()


class ScriptedModel(LanguageModel):
    reads_stepwise = True  # to try it would use up the script


def scripted(lm: LanguageModel, tokens: list[int]) -> LanguageModel:
    return ScriptedModel(Script([*tokens, 2], lm.module.config), lm.tokenizer, "script")


@pytest.mark.parametrize("family", CAUSAL)
@pytest.mark.parametrize("seed", range(3))
def test_pieces_make_the_decoded_text_of_all_tokens(tiny_models: dict[str, Path], family: str, seed: int) -> None:
    lm = open_model(tiny_models[family]).language_model()
    prompt = lm.encode("A fox")
    tokens = list(lm.new_tokens(prompt, 60, 1.5, seed))
    pieces = list(lm.stream("A fox", tokens=60, temperature=1.5, seed=seed))
    assert lm.decode(prompt) + "".join(pieces) == lm.decode(prompt[0].tolist() + tokens)
    assert lm.generate("A fox", tokens=60, temperature=1.5, seed=seed) == lm.decode(prompt[0].tolist() + tokens)


@pytest.mark.parametrize("prompt", ["Caf", ""], ids=["word", "empty"])
@pytest.mark.parametrize(
    "text",
    ["é à la carte", "naïve 日本語 mix", "ends in é", "👍🏽 and more", "  two  spaces "],
    ids=["accents", "kanji", "accent-last", "emoji", "spaces"],
)
def test_no_piece_holds_half_a_character(lm: LanguageModel, prompt: str, text: str) -> None:
    tokens = lm.encode(text)[0].tolist()[1:]
    pieces = list(scripted(lm, tokens).stream(prompt))
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(pieces)
    assert lm.decode(lm.encode(prompt)) + "".join(pieces) == lm.decode(lm.encode(prompt)[0].tolist() + tokens)
    assert all(pieces)
    assert len(pieces) > 1


def test_an_unfinished_character_at_the_end_is_shown_as_such(lm: LanguageModel) -> None:
    tokens = lm.encode("oh 日")[0].tolist()[1:-1]
    assert scripted(lm, tokens).generate("Say") == lm.decode(lm.encode("Say")[0].tolist() + tokens)
    assert scripted(lm, tokens).generate("Say").endswith("\N{REPLACEMENT CHARACTER}")


def test_pieces_arrive_while_the_text_is_written(lm: LanguageModel) -> None:
    tokens = lm.encode("one two three four")[0].tolist()[1:]
    writer = scripted(lm, tokens)
    first = next(writer.stream("Count"))
    assert first
    assert len(list(writer.module.tokens)) == len(tokens)  # all but the first, and the end token


def test_greedy_takes_the_likeliest_token_each_time(lm: LanguageModel) -> None:
    ids = lm.encode("Once")
    expected = []
    for _ in range(12):
        token = int(lm.logits(ids)[0, -1].argmax())
        if token in (1, 2):
            break
        expected.append(token)
        ids = torch.cat([ids, torch.tensor([[token]])], 1)
    assert expected
    assert list(lm.new_tokens(lm.encode("Once"), 12, 0.0, 0)) == expected


def test_a_seed_repeats_itself_and_another_differs(lm: LanguageModel) -> None:
    texts = [lm.generate("Once", tokens=30, temperature=1.0, seed=seed) for seed in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("stop", [1, 2], ids=["first-token", "end-token"])
def test_writing_stops_where_the_text_ends(lm: LanguageModel, stop: int) -> None:
    tokens = lm.encode("The end.")[0].tolist()[1:]
    writer = scripted(lm, [*tokens, stop, *tokens])
    assert writer.generate("So", tokens=50) == "So The end."


def test_writing_stops_at_the_context(lm: LanguageModel) -> None:
    prompt = lm.encode("word " * 40)[:, : lm.context - 4]
    text = lm.decode(prompt)
    length = lm.encode(text).shape[1]
    writer = scripted(lm, [300] * 500)
    assert len(list(writer.stream(text, tokens=500))) == lm.context - length


def test_logits_are_float32_and_do_not_need_a_gradient(lm: LanguageModel) -> None:
    logits = lm.logits(lm.encode("Once upon"))
    assert (logits.dtype, logits.shape[-1], logits.requires_grad) == (torch.float32, 512, False)


def test_streaming_leaves_the_caller_s_gradient_mode_alone(lm: LanguageModel) -> None:
    for _ in lm.stream("Once", tokens=3):
        assert not torch.is_inference_mode_enabled()
        assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        pytest.param(
            lambda lm: lm.stream("word " * 200), r"the prompt has \d+ tokens, but the context is 128 tokens", id="long-prompt"
        ),
        pytest.param(
            lambda lm: lm.logits(torch.zeros(1, 129, dtype=torch.long)),
            "129 tokens given, but the context is 128 tokens",
            id="long-text",
        ),
        pytest.param(lambda lm: lm.stream("a", tokens=-1), "-1 tokens to generate; use 0 or more", id="negative-tokens"),
        pytest.param(lambda lm: lm.stream("a", temperature=-0.5), "temperature -0.5; use 0", id="negative-temperature"),
        pytest.param(lambda lm: lm.stream("a", temperature=float("nan")), "temperature nan; use 0", id="nan-temperature"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_runs(lm: LanguageModel, call: object, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        call(lm)


def test_an_empty_prompt_begins_with_the_first_token(lm: LanguageModel) -> None:
    assert lm.encode("").tolist() == [[1]]
    assert "".join(lm.stream("", tokens=5)) == lm.generate("", tokens=5)


def test_threads_may_write_at_the_same_time(lm: LanguageModel) -> None:
    expected = lm.generate("Once", tokens=40)
    texts: list[str] = []
    threads = [threading.Thread(target=lambda: texts.append(lm.generate("Once", tokens=40))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert texts == [expected] * 4
