"""Families whose blocks, caches or attention differ from those of most: nothing is taken for granted about them."""

import warnings
from pathlib import Path

import pytest
import torch

import workbench as wb
from tests.zoo.checkpoints import write_checkpoint
from workbench.errors import ModelError
from workbench.models.blocks import BlockRow
from workbench.models.boundaries import Boundaries
from workbench.models.handle import ModelHandle
from workbench.models.text import Text

TEXT = Text("one story", ("Tom had a red ball. He ran home. A cat sat on my hat.",))
IDS = torch.arange(3, 43)[None]


def opened(kind: str, folder: Path) -> ModelHandle:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what transformers says while it builds
        return wb.open_model(write_checkpoint(kind, folder / kind))


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("hy_v4", "pass on more than hidden states"),  # which tokens are attended to
        ("dory", "run more than once for a text"),
        ("openai-gpt", ""),  # returns lists
    ],
)
def test_changes_run_on_from_where_they_can(tmp_path: Path, kind: str, why: str) -> None:
    model = opened(kind, tmp_path)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        kept = Boundaries(model, [IDS])
    assert [str(warning.message) for warning in said if why and why in str(warning.message)] or not why
    assert model.replays is not bool(why)
    for name in (model.layer_names[0], model.layer_names[-1]):
        new = model.weight(name).float() * 1.5
        with model.swapped({name: new}):
            expected = model.language_model().logits(IDS)
        torch.testing.assert_close(kept.logits(0, {name: new}), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["xlm", "bigbird_pegasus"])
def test_blocks_that_get_a_cache_run_as_often_as_asked(tmp_path: Path, kind: str) -> None:
    row = BlockRow(opened(kind, tmp_path))
    for _, run in row.run_through([IDS, IDS + 5]):
        for number in (0, 1, 0):
            run(number)
    text = row.start([IDS])
    with row.block(0) as block:
        first, second = (text.calls[0].run(block) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_blocks_that_share_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"blocks that share their weights \('model\.layers\.3\..* is 'model\.layers\.1\."):
        opened("zamba", tmp_path)


def test_a_cache_that_forgets_what_the_text_at_once_sees(tmp_path: Path) -> None:
    lm = opened("moshi", tmp_path).language_model()
    prompt = IDS[:, :28]  # its window is 32
    with pytest.warns(UserWarning, match="predicts differently token by token"):
        written = list(lm.new_tokens(prompt, 10))
    ids = prompt
    for token in written:
        assert int(lm.logits(ids)[0, -1].argmax()) == token
        ids = torch.cat([ids, torch.tensor([[token]])], 1)
    assert ids.shape[1] > 32


def test_perplexity_says_when_predictions_know_what_follows(tmp_path: Path, tiny_models: dict[str, Path]) -> None:
    model = opened("xlnet", tmp_path)
    with pytest.warns(UserWarning, match="is bidirectional"):
        model.perplexity(TEXT)
    wb.open_model(tiny_models["llama"]).perplexity(TEXT)  # warnings are errors


def test_packed_layers_whose_family_multiplies_with_their_weight(tmp_path: Path) -> None:
    model = opened("mamba", tmp_path)
    quantized = wb.quantize_model(model, wb.recipe("rtn", bits=3))
    loaded = wb.load(wb.save(quantized, tmp_path / "saved", model))
    with model.swapped({name: layer.weight() for name, layer in quantized.layers.items()}):
        expected = model.language_model().logits(IDS)
    torch.testing.assert_close(loaded.logits(IDS), expected, rtol=0, atol=0.05 * float(expected.std()))
