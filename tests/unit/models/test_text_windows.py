"""Perplexity in windows, against plain loops over transformers as the programs that it is compared with run them."""

import math
import re
from pathlib import Path

import pytest
import torch

from workbench.errors import ModelError, WorkbenchWarning
from workbench.models import ModelHandle, open_model
from workbench.models.language_model import LanguageModel
from workbench.models.text import Text, text
from workbench.models.text_windows import cut_windows, join_tokens, make_window_rule, measure_in_windows

STORIES = Text("stories", text("evaluation").documents[:3])


@pytest.fixture(scope="module")
def lm(builtin: ModelHandle) -> LanguageModel:
    return builtin.language_model()


def encode_all(lm: LanguageModel) -> torch.Tensor:
    return torch.tensor([lm.tokenizer("\n\n".join(STORIES.documents))["input_ids"]])


@torch.no_grad()
def loop_as_gptq(lm: LanguageModel, ids: torch.Tensor, window: int) -> float:
    """Windows side by side; the loss of each counts as of `window` tokens."""
    count, total = ids.numel() // window, 0.0
    for index in range(count):
        batch = ids[:, index * window : (index + 1) * window]
        logits = lm.module(batch).logits[:, :-1].flatten(0, 1)
        total += float(torch.nn.functional.cross_entropy(logits, batch[0, 1:])) * window
    return math.exp(total / (count * window))


@torch.no_grad()
def loop_strided(lm: LanguageModel, ids: torch.Tensor, window: int, stride: int) -> tuple[float, int]:
    """Labels of what an earlier window scored are −100; transformers computes the loss."""
    total, tokens, before = 0.0, 0, 0
    for start in range(0, ids.shape[1], stride):
        stop = min(start + window, ids.shape[1])
        batch = ids[:, start:stop]
        labels = batch.clone()
        labels[:, : -(stop - before)] = -100
        count = int((labels[:, 1:] != -100).sum())
        total += float(lm.module(batch, labels=labels).loss) * count
        tokens, before = tokens + count, stop
        if stop == ids.shape[1]:
            break
    return math.exp(total / tokens), tokens


@torch.no_grad()
def loop_as_llama_cpp(lm: LanguageModel, ids: torch.Tensor, window: int) -> float:
    """The second half of each window, which begins with the first token."""
    losses = []
    for index in range(ids.numel() // window):
        batch = ids[:, index * window : (index + 1) * window].clone()
        batch[0, 0] = lm.tokenizer.bos_token_id
        log_p = lm.module(batch).logits[0].log_softmax(-1)
        losses += [-float(log_p[j, batch[0, j + 1]]) for j in range(window // 2, window - 1)]
    return math.exp(sum(losses) / len(losses))


@pytest.mark.parametrize("window", [512, 100])
def test_gptq_windows_are_those_of_a_plain_loop(lm: LanguageModel, window: int) -> None:
    ids = encode_all(lm)
    found = measure_in_windows(lm, STORIES, style="gptq", window=window)
    assert found.perplexity == pytest.approx(loop_as_gptq(lm, ids, window), rel=1e-5)
    assert found.tokens == ids.numel() // window * (window - 1)
    assert {size.tokens for size in found.windows} == {window - 1}


@pytest.mark.parametrize(("window", "stride"), [(512, 512), (256, 64), (100, 99), (90, 40)])
def test_strided_windows_are_those_of_a_plain_loop(lm: LanguageModel, window: int, stride: int) -> None:
    part = Text("part", STORIES.documents[: 1 if stride < window - 1 else 3])
    ids = torch.tensor([lm.tokenizer("\n\n".join(part.documents))["input_ids"]])
    found = measure_in_windows(lm, part, window=window, stride=stride)
    expected, tokens = loop_strided(lm, ids, window, stride)
    assert found.perplexity == pytest.approx(expected, rel=1e-5)
    assert found.tokens == tokens
    if stride < window:  # where they overlap each token is scored once
        assert tokens == ids.shape[1] - 1
        assert found.bytes == len("\n\n".join(part.documents).encode())


@pytest.mark.parametrize("window", [128, 51])
def test_llama_cpp_windows_are_those_of_a_plain_loop(lm: LanguageModel, window: int) -> None:
    found = measure_in_windows(lm, STORIES, style="llama.cpp", window=window)
    assert found.perplexity == pytest.approx(loop_as_llama_cpp(lm, encode_all(lm), window), rel=1e-5)
    assert {size.tokens for size in found.windows} == {window - 1 - window // 2}


def test_a_tokenizer_without_a_first_token_keeps_that_of_the_text(tiny_models: dict[str, Path]) -> None:
    lm = open_model(tiny_models["gpt2"]).language_model()
    lm.tokenizer.backend_tokenizer.post_processor = None
    rule = make_window_rule(lm, "llama.cpp", 8)
    windows = [span.window for span in cut_windows(lm, STORIES, rule, 40)]
    assert torch.equal(torch.cat(windows, 1), join_tokens(lm, STORIES, 40))


def test_windows_longer_than_the_context_are_shortened_and_it_is_said(lm: LanguageModel) -> None:
    with pytest.warns(WorkbenchWarning, match=re.escape("windows have 512 tokens, not 2,048: that is the context of")):
        rule = make_window_rule(lm, "gptq")
    assert (rule.window, rule.stride) == (512, 512)


def test_llama_cpp_has_its_own_window(lm: LanguageModel) -> None:
    assert make_window_rule(lm, "llama.cpp").window == 512


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"style": "gpt"}, "unknown style 'gpt' of windows; use one of strided, gptq, llama.cpp"),
        ({"window": 2}, "a window of 2 tokens; use 4 or more"),
        ({"window": 64, "stride": -1}, "a stride of -1 tokens; use 1 or more"),
        ({"style": "gptq", "window": 64, "stride": 32}, "a stride of 32 tokens with windows of 64 as in gptq"),
        ({"style": "gptq", "window": 128, "tokens": 100}, "has 100 tokens, less than one window of 128"),
        ({"window": 64, "tokens": 0}, "0 tokens to read; use 1 or more"),
        ({"window": 64, "tokens": 1}, "has 1 token, less than one window of 64"),
    ],
)
def test_what_cannot_be_cut(lm: LanguageModel, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ModelError, match=re.escape(sentence)):
        measure_in_windows(lm, STORIES, **options)
