"""Two models that write together write what each writes alone, and KL and candidates are those of plain forward passes."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import kl_div

import workbench as wb
from workbench.analysis.predictions.generation import (
    END,
    TOP,
    Candidate,
    Writing,
    WrittenToken,
    tabulate_candidates,
    write_together,
)
from workbench.artifact.quantized_copy import build_packed_copy
from workbench.errors import ModelError
from workbench.models.language_model import LanguageModel

PROMPT = "The small dog"
TOKENS = 24


@pytest.fixture(scope="module")
def models(tiny_models: dict[str, Path]) -> tuple[LanguageModel, LanguageModel]:
    """A tiny model, and the same at one bit."""
    model = wb.open_model(tiny_models["llama"])
    layers = wb.quantize_model(model, wb.recipe("rtn", bits=1, group=32)).layers
    return model.language_model(), build_packed_copy(model, layers)


@pytest.fixture(scope="module")
def writing(models: tuple[LanguageModel, LanguageModel]) -> Writing:
    """Both texts at their end."""
    return list(write_together(*models, PROMPT, TOKENS))[-1]


def token(text: str, number: int = 5, kl: float = 0.0) -> WrittenToken:
    return WrittenToken(number, text, kl, (Candidate(text, 0.5, 0.25),))


def test_each_text_is_what_its_model_writes_alone(models: tuple[LanguageModel, LanguageModel], writing: Writing) -> None:
    for model, side in zip(models, (writing.original, writing.quantized), strict=True):
        assert [token.id for token in side] == list(model.new_tokens(model.encode(PROMPT), TOKENS))
        assert "".join(token.text for token in side) == "".join(model.stream(PROMPT, TOKENS))
    assert writing.fork is not None
    assert writing.fork < TOKENS - 1, "the texts go on after the fork, each read by both models"


@pytest.mark.parametrize("side", ["original", "quantized"])
def test_kl_and_candidates_are_those_of_plain_forward_passes(
    models: tuple[LanguageModel, LanguageModel], writing: Writing, side: str
) -> None:
    tokens = getattr(writing, side)
    prompt = models[0].encode(PROMPT)
    ids = torch.cat([prompt, torch.tensor([[token.id for token in tokens]])], 1)
    p, q = (model.logits(ids)[0, prompt.shape[1] - 1 : -1].log_softmax(-1) for model in models)
    wanted = kl_div(q, p, log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(torch.tensor([token.kl for token in tokens]), wanted, rtol=1e-3, atol=1e-5)
    last = tokens[-1].candidates
    torch.testing.assert_close(torch.tensor(max(c.original for c in last)), p[-1].exp().max(), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(torch.tensor(max(c.quantized for c in last)), q[-1].exp().max(), rtol=1e-3, atol=1e-6)
    assert TOP <= len(last) <= 2 * TOP


def test_a_model_beside_itself_agrees_everywhere(models: tuple[LanguageModel, LanguageModel]) -> None:
    *_, last = write_together(models[0], models[0], PROMPT, TOKENS)
    assert last.original == last.quantized
    assert (last.fork, {token.kl for token in last.original}) == (None, {0.0})


def test_every_step_brings_one_token_to_each_text(models: tuple[LanguageModel, LanguageModel]) -> None:
    steps = list(write_together(*models, PROMPT, 5))
    assert [(len(step.original), len(step.quantized)) for step in steps] == [(n, n) for n in (1, 2, 3, 4, 5, 5)]
    assert [step.done for step in steps] == [False] * 5 + [True]


def test_a_text_that_ends_earlier_ends_there(models: tuple[LanguageModel, LanguageModel], writing: Writing) -> None:
    """The original's third token is declared the end of its text: the quantized model writes on and is still read by both."""
    first = LanguageModel(models[0].module, models[0].tokenizer, "stops early")
    end = next(token.id for place, token in enumerate(writing.original) if place == 2)
    first.__dict__["stops"] = frozenset({end})
    *_, last = write_together(first, models[1], PROMPT, 8)
    assert len(last.original) <= 2 < len(last.quantized) == 8
    assert last.done
    ids = torch.tensor([[*first.encode(PROMPT)[0].tolist(), *(token.id for token in last.quantized)]])
    p, q = (model.logits(ids)[0, -2].log_softmax(-1) for model in (first, models[1]))
    assert last.quantized[-1].kl == pytest.approx(float(kl_div(q, p, log_target=True, reduction="sum")), rel=1e-3, abs=1e-5)


def test_a_prompt_as_long_as_the_context_is_explained(models: tuple[LanguageModel, LanguageModel]) -> None:
    with pytest.raises(ModelError, match=r"the prompt has \d+ tokens, but the context is 128 tokens; shorten it"):
        next(write_together(*models, "dog " * 200))


@pytest.mark.parametrize(
    ("original", "quantized", "fork"),
    [
        pytest.param([1, 2], [1, 2], None, id="equal"),
        pytest.param([1, 2, 3], [1, 2, 4], 2, id="third"),
        pytest.param([1], [2], 0, id="first"),
        pytest.param([1, 2], [1], 1, id="one-ends-earlier"),
        pytest.param([], [1], 0, id="nothing-written"),
        pytest.param([], [], None, id="both-empty"),
    ],
)
def test_the_fork_is_the_first_difference(original: list[int], quantized: list[int], fork: int | None) -> None:
    sides = [tuple(token(str(number), number) for number in side) for side in (original, quantized)]
    assert Writing(*sides).fork == Writing(*reversed(sides)).fork == fork


def test_tables_hold_every_place_and_every_candidate() -> None:
    table = Writing((token("a", 1, 0.5), token("b", 2, 0.25)), (token("a", 1, 0.5),), done=True).table()
    assert table["position"].tolist() == [1, 2]
    assert table["kl_original"].tolist() == [0.5, 0.25]
    assert table["quantized"][0] == "a"
    assert table[["quantized", "kl_quantized"]].isna()[1:].all(axis=None)
    assert tabulate_candidates(token(END)).to_dict("list") == {"token": [END], "p_original": [0.5], "p_quantized": [0.25]}
