"""Divergence of two models on a text, against plain torch over the whole text at once."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from workbench.analysis.predictions import divergence
from workbench.analysis.predictions.compare import compare
from workbench.errors import ModelError
from workbench.models import ModelHandle, perplexity
from workbench.models.text import Text

STORIES = Text(
    "stories",
    (
        "Tom had a red ball. He threw it high and his dog ran after it.",
        "One day a small bird sat on the roof. It sang a song, and the cat below listened.",
        "Mia wanted to bake bread with her mother. They mixed the flour and waited.",
    ),
)


def other_logits(model: ModelHandle) -> Callable[[Tensor], Tensor]:
    """The built-in model with one layer scaled down."""
    name = "model.layers.1.mlp.down_proj"
    weight = 0.5 * model.weight(name).float()

    def logits(ids: Tensor) -> Tensor:
        with model.swapped({name: weight}):
            return model.language_model().logits(ids)

    return logits


def test_figures_agree_with_plain_torch(builtin: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divergence, "POSITIONS_AT_ONCE", 5)  # several pieces to a window
    lm, changed = builtin.language_model(), other_logits(builtin)
    found = divergence.measure_divergence(lm, STORIES, lm.logits, changed)

    kls, losses, same = [], [], []
    for document in STORIES.documents:
        ids = lm.encode(document)
        p, q = lm.logits(ids)[0, :-1].double().log_softmax(-1), changed(ids)[0, :-1].double().log_softmax(-1)
        kls.append(torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1))
        losses.append([torch.nn.functional.nll_loss(x, ids[0, 1:], reduction="none") for x in (p, q)])
        same.append(p.argmax(-1) == q.argmax(-1))
    torch.testing.assert_close(torch.from_numpy(found.per_token.kl), torch.cat(kls), rtol=1e-3, atol=1e-6)
    assert found.kl == pytest.approx(torch.cat(kls).mean().item(), rel=1e-4)
    assert found.perplexity_original == pytest.approx(torch.cat([a for a, _ in losses]).mean().exp().item(), rel=1e-5)
    assert found.perplexity == pytest.approx(torch.cat([b for _, b in losses]).mean().exp().item(), rel=1e-5)
    assert found.top1_agreement == pytest.approx(torch.cat(same).double().mean().item())
    assert found.kl > 0
    assert 0 < found.top1_changed < 1


def test_perplexity_is_that_of_perplexity(builtin: ModelHandle) -> None:
    lm = builtin.language_model()
    found, reference = divergence.measure_divergence(lm, STORIES, lm.logits, lm.logits), builtin.perplexity(STORIES)
    assert found.tokens == reference.tokens
    assert found.perplexity == pytest.approx(reference.perplexity, rel=1e-9)
    assert found.perplexity_interval == pytest.approx(reference.perplexity_interval, rel=1e-9)


def test_a_model_compared_with_itself_is_exactly_zero(builtin: ModelHandle) -> None:
    found = compare(builtin, builtin, STORIES)
    assert (found.kl, found.kl_interval, found.kl_median, found.top1_changed) == (0.0, (0.0, 0.0), 0.0, 0.0)
    assert found.top1_agreement == 1.0
    assert found.perplexity == found.perplexity_original


def test_a_token_that_the_original_rules_out_counts_nothing() -> None:
    ids = torch.tensor([[0, 1]])
    original = torch.tensor([[[0.0, -torch.inf, 0.0]]]).expand(1, 2, 3)
    changed = torch.tensor([[[0.0, 5.0, 0.0]]]).expand(1, 2, 3)
    _, _, kl, *_ = divergence.score(0, ids, original, changed)
    expected = np.log(0.5) - torch.tensor([0.0, 5.0, 0.0]).log_softmax(-1)[0].item()
    assert kl == pytest.approx([expected], rel=1e-6)


def test_every_token_but_a_documents_first_is_scored_once(builtin: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perplexity, "WINDOW", 8)
    lm = builtin.language_model()
    scored = [(span.document, span.window[0, 1:].tolist()) for span in perplexity.iterate_spans(lm, STORIES)]
    for index, document in enumerate(STORIES.documents):
        whole = lm.encode(document)[0, 1:].tolist()
        assert [token for number, ids in scored if number == index for token in ids] == whole
    assert all(len(ids) <= 7 for _, ids in scored)
    assert compare(builtin, builtin, STORIES).tokens == sum(len(ids) for _, ids in scored)


@pytest.mark.parametrize("tokens", [1, 7, 30])
def test_as_many_tokens_as_asked_for(builtin: ModelHandle, tokens: int) -> None:
    assert compare(builtin, builtin, STORIES, tokens=tokens).tokens == tokens


def test_interval_holds_the_mean(builtin: ModelHandle) -> None:
    lm = builtin.language_model()
    found = divergence.measure_divergence(lm, STORIES, lm.logits, other_logits(builtin))
    assert found.kl_interval[0] < found.kl < found.kl_interval[1]
    assert found.perplexity_interval[0] < found.perplexity < found.perplexity_interval[1]


def test_a_ratio_is_paired_document_by_document(builtin: ModelHandle) -> None:
    lm = builtin.language_model()
    found = divergence.measure_divergence(lm, STORIES, lm.logits, other_logits(builtin)).ratio
    first = perplexity.perplexity(lm, STORIES)
    with builtin.swapped({"model.layers.1.mlp.down_proj": 0.5 * builtin.weight("model.layers.1.mlp.down_proj").float()}):
        other = perplexity.perplexity(lm, STORIES)
    expected = perplexity.compute_perplexity_ratio(first, other)
    assert found.ratio == pytest.approx(expected.ratio, rel=1e-5)
    assert found.interval == pytest.approx(expected.interval, rel=1e-5)


def test_table_names_the_tokens(builtin: ModelHandle) -> None:
    table = compare(builtin, builtin, STORIES, tokens=20).table(builtin.language_model().decode)
    assert list(table.columns) == ["document", "id", "token", "kl", "top1_original", "top1", "loss_original", "loss"]
    assert "".join(table["token"]).strip().replace(" ", "").startswith("Tom")


@pytest.mark.parametrize("tokens", [0, -3])
def test_no_tokens_is_an_error(builtin: ModelHandle, tokens: int) -> None:
    with pytest.raises(ModelError, match=f"{tokens} tokens to score; use 1 or more"):
        compare(builtin, builtin, STORIES, tokens=tokens)


def test_models_with_other_tokens_are_not_compared(builtin: ModelHandle, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = builtin.language_model()

    class Backwards(type(lm)):
        def encode(self, text: str) -> Tensor:
            return super().encode(text).flip(1)

    with pytest.raises(ModelError, match="compare models that share a tokenizer"):
        compare(lm, Backwards(lm.module, lm.tokenizer, "backwards"), STORIES)


def test_other_vocabularies_are_not_compared() -> None:
    with pytest.raises(ModelError, match="the vocabularies differ"):
        divergence.score(0, torch.tensor([[0, 1]]), torch.zeros(1, 2, 3), torch.zeros(1, 2, 4))
