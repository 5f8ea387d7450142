"""Attention and cache of one block: those of transformers itself, and what a packed cache gives back."""

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.analysis.predictions.block_reading import (
    BlockReading,
    pack_block,
    read_block,
    tabulate_attention,
    tabulate_channel_errors,
)
from workbench.errors import ModelError, RecipeError
from workbench.models import ModelHandle
from workbench.models.kv_cache import CachedModel
from workbench.quantizers.kv import parse

TEXT = "Once upon a time there was a little girl named Lily. She loved to play outside in the park with her big dog."


@pytest.fixture(scope="module")
def model() -> ModelHandle:
    return wb.open_model("builtin")


@pytest.fixture(scope="module")
def reading(model: ModelHandle) -> BlockReading:
    return read_block(model, TEXT, 3)


def test_it_is_what_transformers_says(model: ModelHandle, reading: BlockReading) -> None:
    lm = model.language_model()
    module, ids = lm.module, lm.encode(TEXT)
    before = module.config._attn_implementation
    module.set_attn_implementation("eager")
    with torch.no_grad():
        out = module(ids, output_attentions=True, use_cache=True)
    module.set_attn_implementation(before)
    torch.testing.assert_close(reading.attention, out.attentions[3][0], rtol=1e-5, atol=1e-6)
    cache = getattr(out, "cache", None) or out.past_key_values
    torch.testing.assert_close(reading.keys, cache.layers[3].keys[0].transpose(0, 1).flatten(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(reading.values, cache.layers[3].values[0].transpose(0, 1).flatten(1), rtol=1e-5, atol=1e-5)
    assert len(reading.tokens) == ids.shape[1]
    assert lm.module.config._attn_implementation == before, "the model attends as before"


def test_attention_is_shared_out_and_never_goes_ahead(reading: BlockReading) -> None:
    torch.testing.assert_close(reading.attention.sum(-1), torch.ones(reading.attention.shape[:2]), rtol=0, atol=1e-5)
    assert (torch.triu(reading.attention, 1) == 0).all()


@pytest.mark.parametrize("scheme", ["none", "kivi:bits=2", "zipcache:bits=2", "vidkv", "rotated:bits=1"])
def test_the_first_block_is_packed_as_in_writing(model: ModelHandle, scheme: str) -> None:
    """In block 0 keys and values come from no packed cache, so that those of a writing model are the same."""
    first, how, lm = read_block(model, TEXT, 0), parse(scheme), model.language_model()
    packed = pack_block(first, scheme, block=8)
    cached = CachedModel(lm, how.pack, block=8, watches=how.watches)
    cache, ids = cached._new_cache(), lm.encode(TEXT)
    for piece in ids.split(8, 1):
        _, cache = cached._forward(piece, cache, use_cache=True)
    layer = cache.layers[0]
    decoded = torch.cat([pair[0] for pair in layer.decoded], -2)[0].transpose(0, 1).flatten(1)
    assert packed.packed_tokens >= len(decoded) > 0
    # attention over what is packed differs a little from that over the whole cache, and with it which tokens are salient
    tolerance = 0.05 if how.watches else 0.02
    lost = (packed.keys[: len(decoded)] - decoded).square().sum() / decoded.square().sum()
    assert lost < tolerance


def test_tokens_after_the_last_full_block_stay_in_fp16(reading: BlockReading) -> None:
    packed = pack_block(reading, "kivi:bits=2", block=8)
    count = len(reading.tokens) // 8 * 8
    assert packed.packed_tokens == count
    torch.testing.assert_close(packed.keys[count:], reading.keys[count:].half().float(), rtol=0, atol=0)
    assert (packed.keys[:count] != reading.keys[:count]).any()
    nothing = pack_block(reading, "kivi:bits=2", block=512)
    assert nothing.packed_tokens == 0
    torch.testing.assert_close(nothing.values, reading.values.half().float(), rtol=0, atol=0)


def test_tables_have_the_largest_first(reading: BlockReading) -> None:
    table = tabulate_attention(reading, None, 1)
    assert table["attention"].is_monotonic_decreasing
    row = table.iloc[4]
    assert row["attention"] == pytest.approx(float(reading.attention[1, row["query"], row["key"]]))
    other = BlockReading(3, reading.tokens, reading.attention.roll(1, 0), reading.keys, reading.values)
    changed = tabulate_attention(reading, other, 1, difference=True)
    assert changed["attention_change"].abs().is_monotonic_decreasing
    np.testing.assert_allclose(changed["attention_quantized"] - changed["attention"], changed["attention_change"])
    packed = pack_block(reading, "kivi:bits=2", block=8)
    errors = tabulate_channel_errors(reading.keys, packed.keys, packed.packed_tokens)
    lost = (packed.keys - reading.keys)[: packed.packed_tokens].square().sum(0)
    assert errors["cache_channel"][0] == int(lost.argmax())
    assert errors["channel_share"][0] == pytest.approx(float(lost.max() / lost.sum()))


@pytest.mark.parametrize(
    ("block", "tokens", "said"), [(6, 8, "it has the blocks 0 to 5"), (-1, 8, "block -1"), (0, 257, "use 1 to 256")]
)
def test_what_there_is_not_is_one_sentence(model: ModelHandle, block: int, tokens: int, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        read_block(model, TEXT, block, tokens=tokens)


def test_an_unknown_scheme_is_one_sentence(reading: BlockReading) -> None:
    with pytest.raises(RecipeError, match="Did you mean 'kivi'"):
        pack_block(reading, "kivy")
