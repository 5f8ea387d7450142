"""What-if of one layer: nothing changed is exactly nothing, more bits hurt less, and the model is as before afterwards."""

import pytest
import torch

import workbench as wb
from workbench.analysis.predictions.compare import compare
from workbench.errors import ModelError, RecipeError
from workbench.models import ModelHandle
from workbench.models.text import Text

LAYER = "model.layers.2.mlp.down_proj"
STORIES = Text(
    "stories", ("Tom had a red ball. He threw it high and his dog ran after it.", "A small bird sat on the roof and sang a song.")
)


def test_none_changes_nothing_at_all(builtin: ModelHandle) -> None:
    found = wb.what_if(builtin, LAYER, wb.recipe("none"), STORIES)
    assert (found.kl, found.kl_interval, found.top1_changed) == (0.0, (0.0, 0.0), 0.0)
    assert found.perplexity == found.perplexity_original


def test_fewer_bits_hurt_more(builtin: ModelHandle) -> None:
    found = [wb.what_if(builtin, LAYER, wb.recipe("rtn", bits=bits, group=64), STORIES) for bits in (8, 4, 2)]
    assert found[0].kl < found[1].kl < found[2].kl
    assert found[0].layer.bits_per_weight > found[1].layer.bits_per_weight > found[2].layer.bits_per_weight


def test_figures_are_those_of_the_model_with_the_layer_swapped(builtin: ModelHandle) -> None:
    found = wb.what_if(builtin, LAYER, wb.recipe("rtn", bits=2, group=64), STORIES)
    with builtin.swapped({LAYER: found.layer.weight()}):
        assert builtin.perplexity(STORIES).perplexity == pytest.approx(found.perplexity, rel=1e-9)
    assert builtin.perplexity(STORIES).perplexity == pytest.approx(found.perplexity_original, rel=1e-9)


def test_a_quantized_layer_may_be_given(builtin: ModelHandle) -> None:
    layer = wb.quantize(builtin, LAYER, wb.recipe("rtn", bits=3, group=64))
    found = wb.what_if(builtin, LAYER, layer, STORIES)
    assert found.layer is layer
    assert found.kl == wb.what_if(builtin, LAYER, wb.recipe("rtn", bits=3, group=64), STORIES).kl


def test_the_model_is_as_before(builtin: ModelHandle) -> None:
    ids = builtin.encode(STORIES.documents[0])
    before = builtin.language_model().logits(ids)
    wb.what_if(builtin, LAYER, wb.recipe("rtn", bits=2, group=64), STORIES)
    torch.testing.assert_close(builtin.language_model().logits(ids), before, rtol=0, atol=0)
    assert compare(builtin, builtin, STORIES).kl == 0.0


def test_as_many_tokens_as_asked_for(builtin: ModelHandle) -> None:
    assert wb.what_if(builtin, LAYER, wb.recipe("none"), STORIES, tokens=9).divergence.tokens == 9


def test_unknown_layer(builtin: ModelHandle) -> None:
    with pytest.raises(ModelError, match="did you mean 'model.layers.2.mlp.down_proj'"):
        wb.what_if(builtin, "model.layers.2.mlp.down", wb.recipe("none"), STORIES)


def test_a_recipe_that_needs_calibration_says_so(builtin: ModelHandle) -> None:
    with pytest.raises(RecipeError, match="needs calibration; pass stats="):
        wb.what_if(builtin, LAYER, wb.recipe("gptq", bits=3, group=64), STORIES)
