"""The fork rate against texts that transformers itself writes, and damage by position."""

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.analysis.predictions.compare import compare
from workbench.analysis.predictions.divergence import Divergence, Tokens, summarise
from workbench.analysis.predictions.fork_rate import ForkRate, measure_forks, write_greedy_texts
from workbench.analysis.predictions.position_table import count_context, tabulate_positions
from workbench.artifact import PackedModel
from workbench.errors import ModelError
from workbench.models import ModelHandle
from workbench.models.language_model import LanguageModel

PROMPTS = ["Once upon a time", "Peter had a secret", "The cat"]


@pytest.fixture(scope="module")
def small(builtin: ModelHandle) -> PackedModel:
    return wb.pack_model(wb.quantize_model(builtin, wb.recipe("rtn", bits=3), layers="*.[0-2].mlp.*"))


def generate(lm: LanguageModel, prompt: str, tokens: int) -> list[int]:
    """What transformers' own `generate` writes."""
    ids = lm.encode(prompt)
    stops = {"eos_token_id": sorted(lm.stops), "pad_token_id": 0}
    out = lm.module.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, do_sample=False, **stops)
    return out[0, ids.shape[1] :].tolist()


def test_forks_are_where_transformers_own_texts_part(builtin: ModelHandle, small: PackedModel) -> None:
    found = measure_forks(builtin, small, PROMPTS, tokens=24)
    expected = []
    for prompt in PROMPTS:
        pairs = zip(*(generate(model, prompt, 24) for model in (builtin.language_model(), small)), strict=False)
        expected.append(next((position for position, (a, b) in enumerate(pairs, 1) if a != b), None))
    assert found.forks == tuple(expected)
    assert any(fork is not None for fork in expected)
    assert found.agreed == tuple(24 if fork is None else fork - 1 for fork in expected)
    texts = write_greedy_texts(builtin.language_model(), PROMPTS, 24)
    assert measure_forks(builtin, small, PROMPTS, tokens=24, texts=texts) == found


def test_a_model_beside_itself_never_forks(builtin: ModelHandle) -> None:
    shares: list[float] = []
    found = measure_forks(builtin, builtin, PROMPTS, tokens=12, on_progress=lambda done, total: shares.append(done / total))
    assert (found.share, found.forks, found.mean_agreed) == (0.0, (None, None, None), 12.0)
    assert found.share_interval[1] == pytest.approx(1 - 0.025 ** (1 / 3))
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert found.table()["agreed"].tolist() == [12, 12, 12]


def test_a_text_that_ends_earlier_parts_there(builtin: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = builtin.language_model()
    texts = write_greedy_texts(lm, PROMPTS[:1], 10)
    for written, fork in ((texts[0].written[:4], 5), (texts[0].written, None)):
        shorter = [type(texts[0])(texts[0].prompt, written)]
        assert measure_forks(lm, lm, PROMPTS[:1], tokens=10, texts=shorter).forks == (fork,)


@pytest.mark.parametrize(("prompts", "tokens"), [([], 5), (["Tom"], 0)])
def test_nothing_to_compare(builtin: ModelHandle, prompts: list[str], tokens: int) -> None:
    with pytest.raises(ModelError, match=f"{len(prompts)} prompts of {tokens} tokens each; give one or more"):
        measure_forks(builtin, builtin, prompts, tokens=tokens)


def test_a_prompt_that_fills_the_context_is_one_sentence(builtin: ModelHandle) -> None:
    with pytest.raises(ModelError, match=r"tokens, but the context is 512 tokens; shorten it"):
        measure_forks(builtin, builtin, ["Tom had a red ball. " * 200])


@pytest.mark.parametrize("hazard", [0.01, 0.1])
def test_intervals_of_the_fork_rate_cover_as_often_as_they_say(hazard: float) -> None:
    """Twenty texts of at most 50 tokens, each of which parts with the same chance at every token."""
    draw, held = np.random.default_rng(3), {"share": 0, "agreed": 0}
    before = (1 - hazard) ** np.arange(1, 51)
    for _ in range(250):
        forks = tuple(int(fork) if fork <= 50 else None for fork in draw.geometric(hazard, 20))
        agreed = tuple(50 if fork is None else fork - 1 for fork in forks)
        found = ForkRate(("",) * 20, forks, agreed, 50)
        held["share"] += found.share_interval[0] <= 1 - before[-1] <= found.share_interval[1]
        held["agreed"] += found.mean_agreed_interval[0] <= before.sum() <= found.mean_agreed_interval[1]
    assert {name: count / 250 for name, count in held.items() if count < 225} == {}


def make_divergence() -> Divergence:
    """Two documents, one of them in two windows; the second model loses 0.1 nats more from the 32nd token on."""
    sizes = [(0, 0, 60), (0, 1, 40), (1, 2, 50)]
    document, window = (np.concatenate([np.full(row[2], row[index]) for row in sizes]) for index in (0, 1))
    position = np.concatenate([np.arange(1, row[2] + 1) for row in sizes])
    before = np.linspace(1, 2, len(position))
    zero = np.zeros(len(position), dtype=int)
    return summarise(Tokens(document, zero, zero * 1.0, zero, zero, before, before + 0.1 * (position >= 32), window), "text")


def test_positions_are_counted_from_the_beginning_of_each_window() -> None:
    divergence = make_divergence()
    assert count_context(divergence.per_token).tolist() == [*range(1, 61), *range(1, 41), *range(1, 51)]
    early, late = tabulate_positions(divergence).to_dict("records")
    assert (early["from"], early["to"], early["tokens"]) == (1, 31, 93)
    assert (late["from"], late["to"], late["tokens"]) == (32, 127, 57)
    assert (early["ratio"], early["ratio_low"], early["ratio_high"]) == (1.0, 1.0, 1.0)
    assert [late["ratio"], late["ratio_low"], late["ratio_high"]] == pytest.approx([np.exp(0.1)] * 3)


def test_perplexities_by_position_make_up_the_whole(builtin: ModelHandle, small: PackedModel) -> None:
    found = compare(builtin, small, wb.text("evaluation"), tokens=600)
    table = tabulate_positions(found)
    for name in ("perplexity", "perplexity_original"):
        mean = (np.log(table[name]) * table["tokens"]).sum() / table["tokens"].sum()
        assert np.exp(mean) == pytest.approx(getattr(found, name))
    assert table["tokens"].sum() == 600
