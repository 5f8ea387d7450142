"""Perplexity and bits per byte against transformers' own loss, and the counts they are made of."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from workbench.errors import ModelError
from workbench.models import ModelHandle, open_model
from workbench.models.language_model import LanguageModel
from workbench.models.perplexity import Window, compute_perplexity_ratio, perplexity, summarise
from workbench.models.text import Text, text

SHORT = Text("short", ("Tom had a red ball. He ran.", "A cat sat.", "Where is my hat? It is on the dog."))


@pytest.fixture
def lm(tiny_models: dict[str, Path]) -> LanguageModel:
    return open_model(tiny_models["llama"]).language_model()


def reference_losses(lm: LanguageModel, ids: torch.Tensor) -> torch.Tensor:
    """transformers' own mean loss, times the number of scored tokens."""
    with torch.no_grad():
        return lm.module(ids, labels=ids).loss * (ids.shape[1] - 1)


def test_it_is_the_exponential_of_the_mean_loss(lm: LanguageModel) -> None:
    ids = [lm.encode(document) for document in SHORT.documents]
    total, count = sum(reference_losses(lm, i) for i in ids), sum(i.shape[1] - 1 for i in ids)
    result = perplexity(lm, SHORT)
    assert (result.tokens, result.text) == (count, "short")
    assert result.bytes == sum(len(document.encode()) for document in SHORT.documents)
    assert result.perplexity == pytest.approx(math.exp(total / count), rel=1e-5)
    assert result.bits_per_byte == pytest.approx(float(total) / math.log(2) / result.bytes, rel=1e-5)
    assert result.losses == pytest.approx([float(reference_losses(lm, i)) / (i.shape[1] - 1) for i in ids], rel=1e-4)


def test_a_long_document_is_scored_once_token_by_token_in_windows(lm: LanguageModel) -> None:
    document = " ".join(SHORT.documents * 10)
    ids = lm.encode(document)
    starts = range(0, ids.shape[1] - 1, lm.context - 1)
    expected = sum(reference_losses(lm, ids[:, start : start + lm.context]) for start in starts)
    result = perplexity(lm, Text("long", (document,)))
    assert ids.shape[1] > 2 * lm.context
    assert (result.tokens, result.bytes, len(result.losses)) == (ids.shape[1] - 1, len(document), len(starts))
    assert math.log(result.perplexity) * result.tokens == pytest.approx(float(expected), rel=1e-5)
    assert result.perplexity_interval is None  # one document, of fewer tokens than two pieces have


@pytest.mark.parametrize("tokens", [1, 7, 20, 40])
def test_the_number_of_tokens_is_met_exactly(lm: LanguageModel, tokens: int) -> None:
    assert perplexity(lm, SHORT, tokens=tokens).tokens == tokens


def test_bytes_count_characters_of_several_bytes(lm: LanguageModel) -> None:
    result = perplexity(lm, Text("snow", ("Ein Schneemann ☃ im März.",)))
    assert result.bytes == len("Ein Schneemann ☃ im März.".encode())


def test_without_a_first_token_the_first_word_is_only_read(tiny_models: dict[str, Path]) -> None:
    lm = open_model(tiny_models["gpt2"]).language_model()
    lm.tokenizer.backend_tokenizer.post_processor = None
    ids = lm.encode("A cat sat.")
    result = perplexity(lm, Text("cat", ("A cat sat.",)))
    assert (result.tokens, result.bytes) == (ids.shape[1] - 1, len("A cat sat.") - len(lm.decode(ids[:, :1])))


def test_windows_of_one_document_are_left_out_together() -> None:
    """Two windows that cancel within each document leave no spread between documents."""
    windows = [Window(d, loss, 10, 10) for d in range(5) for loss in (10.0, 30.0)]
    low, high = summarise(windows, "paired").perplexity_interval
    assert low == pytest.approx(high) == pytest.approx(math.exp(2.0))


def test_a_ratio_is_as_sure_as_the_documents_agree() -> None:
    """Documents as different as can be, on each of which the second model loses 0.05 to 0.15 nats more."""
    losses = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    first = summarise([Window(i, 100 * loss, 100, 200) for i, loss in enumerate(losses)], "text")
    more = [0.05, 0.15, 0.1, 0.1, 0.15, 0.05]
    other = summarise([Window(i, 100 * (a + b), 100, 200) for i, (a, b) in enumerate(zip(losses, more, strict=True))], "text")
    found = compute_perplexity_ratio(first, other)
    assert found.ratio == pytest.approx(math.exp(0.1)) == pytest.approx(other.perplexity / first.perplexity)
    assert math.exp(0.05) <= found.interval[0] < found.ratio < found.interval[1] <= math.exp(0.15)
    assert found.clear
    assert other.perplexity_interval[0] < first.perplexity < other.perplexity_interval[1]  # unpaired, nothing can be said


def test_the_interval_of_a_ratio_covers_as_often_as_it_says() -> None:
    draw = np.random.default_rng(4)
    held = 0
    for _ in range(200):
        hard, more = draw.normal(2.0, 0.5, size=40), draw.normal(0.02, 0.1, size=40)
        first = summarise([Window(i, 100 * a, 100, 200) for i, a in enumerate(hard)], "drawn")
        other = summarise([Window(i, 100 * (a + b), 100, 200) for i, (a, b) in enumerate(zip(hard, more, strict=True))], "drawn")
        low, high = compute_perplexity_ratio(first, other).interval
        held += low <= math.exp(0.02) <= high
    assert 0.88 <= held / 200 <= 0.99


def test_a_model_beside_itself_has_ratio_one(lm: LanguageModel) -> None:
    result = perplexity(lm, SHORT)
    same = compute_perplexity_ratio(result, result)
    assert (same.ratio, same.interval, same.clear) == (1.0, (1.0, 1.0), False)


def test_perplexities_of_different_texts_have_no_ratio(lm: LanguageModel) -> None:
    whole, part = perplexity(lm, SHORT), perplexity(lm, SHORT, tokens=5)
    with pytest.raises(ModelError, match=rf"{whole.tokens} tokens of 'short' and 5 of 'short' cannot be paired; measure both"):
        compute_perplexity_ratio(whole, part)


def test_a_destroyed_model_has_infinite_perplexity_not_an_error() -> None:
    assert summarise([Window(0, 1e6, 10, 20)], "broken").perplexity == math.inf


@pytest.mark.parametrize(
    ("documents", "tokens", "sentence"),
    [
        pytest.param(("Hi.",), 0, "0 tokens to score; use 1 or more", id="no-tokens"),
        pytest.param(("Hi.",), -5, "-5 tokens to score; use 1 or more", id="negative"),
    ],
)
def test_what_cannot_be_scored(lm: LanguageModel, documents: tuple[str, ...], tokens: int, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        perplexity(lm, Text("mine", documents), tokens)


def test_single_tokens_have_nothing_to_score(tiny_models: dict[str, Path]) -> None:
    lm = open_model(tiny_models["llama"]).language_model()
    lm.tokenizer.backend_tokenizer.post_processor = None
    with pytest.raises(ModelError, match="'one' has no token to score"):
        perplexity(lm, Text("one", ("a",)))


def test_the_handle_measures_its_language_model(builtin: ModelHandle) -> None:
    result = builtin.perplexity(text("evaluation"), tokens=500)
    assert result == perplexity(builtin.language_model(), text("evaluation"), 500)
    assert 1.0 < result.perplexity < 30.0


@pytest.mark.shared
def test_stories260k_has_its_known_bits_per_byte(stories260k: ModelHandle, data_folder: Path) -> None:
    """1.123 bits a byte over 1,910 stories (PROVENANCE.md of the data folder); 40 of them come close."""
    stories = text(data_folder / "tinystories" / "stories.txt")
    result = stories260k.perplexity(Text("first 40", stories.documents[:40]))
    assert result.bits_per_byte == pytest.approx(1.123, rel=0.04)
