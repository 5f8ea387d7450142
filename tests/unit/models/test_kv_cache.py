"""A packed cache: what it gives back, when it packs, what it counts, and the attention that it is told of."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from workbench.errors import ModelError
from workbench.kernels import formats
from workbench.kernels.packing.packed import Packed, count_stored_bits
from workbench.models import ModelHandle, open_model
from workbench.models.kv_cache import CachedModel, build_layer_type

BLOCK = 8
STORY = "Tom had a red ball. He threw it high and his dog ran after it. The cat below listened to a small bird that sang."


def halves(keys: Tensor, values: Tensor, saliency: Tensor) -> tuple[Packed, Packed]:
    """Kept in fp16."""
    both = [Packed("dense", *x.shape, {"weight": x.half()}) for x in (keys, values)]
    return both[0], both[1]


def coarse(keys: Tensor, values: Tensor, saliency: Tensor) -> tuple[Packed, Packed]:
    """Rounded to multiples of a quarter."""
    return halves((keys * 4).round() / 4, (values * 4).round() / 4, saliency)


@pytest.fixture(scope="module")
def ids(builtin: ModelHandle) -> Tensor:
    return builtin.encode(STORY)[:, : 4 * BLOCK + 3]


def test_a_cache_that_keeps_everything_changes_nothing(builtin: ModelHandle, ids: Tensor) -> None:
    lm = CachedModel(builtin.language_model(), halves, block=BLOCK)
    torch.testing.assert_close(lm.logits(ids), builtin.language_model().logits(ids), rtol=1e-2, atol=2e-2)


def test_reading_by_blocks_is_writing_token_by_token(builtin: ModelHandle, ids: Tensor) -> None:
    lm = CachedModel(builtin.language_model(), coarse, block=BLOCK)
    kept, rows = lm._new_cache(), []
    for token in ids[0]:
        out, kept = lm._forward(token.view(1, 1), kept, use_cache=True)
        rows.append(out)
    # sums in another order are rounded to fp16 and to quarters: a few values of the cache differ by a step
    torch.testing.assert_close(lm.logits(ids), torch.cat(rows, 1), rtol=1e-2, atol=2e-2)


def test_a_coarse_cache_is_seen_only_after_its_block(builtin: ModelHandle, ids: Tensor) -> None:
    fine, rough = (CachedModel(builtin.language_model(), pack, block=BLOCK).logits(ids)[0] for pack in (halves, coarse))
    torch.testing.assert_close(rough[:BLOCK], fine[:BLOCK])
    assert (rough[BLOCK:] - fine[BLOCK:]).abs().amax(1).min() > 1e-3


def test_what_is_stored_is_counted(builtin: ModelHandle, ids: Tensor) -> None:
    made: list[Packed] = []

    def pack(keys: Tensor, values: Tensor, saliency: Tensor) -> tuple[Packed, Packed]:
        made.extend(coarse(keys, values, saliency))
        return made[-2], made[-1]

    _, size = CachedModel(builtin.language_model(), pack, block=BLOCK).read(ids)
    assert (size.tokens, size.packed_tokens) == (4 * BLOCK + 3, 4 * BLOCK)
    assert size.values == 6 * 2 * 4 * 32  # layers, keys and values, heads, their width
    assert size.packed_bits == sum(count_stored_bits(p.tensors["weight"]) for p in made) == 16 * size.values * size.packed_tokens
    assert size.bytes == 2 * size.values * size.tokens


def test_shared_tensors_are_stored_once(builtin: ModelHandle, ids: Tensor) -> None:
    def pack(keys: Tensor, values: Tensor, saliency: Tensor) -> tuple[Packed, Packed]:
        both = [Packed("dense", *x.shape, {"weight": x.half()}, shared={"weight": ("one", 1)}) for x in (keys, values)]
        return both[0], both[1]

    _, size = CachedModel(builtin.language_model(), pack, block=BLOCK).read(ids)
    assert size.packed_bits == 16 * BLOCK * 4 * 32


def test_generation_goes_through_the_cache(builtin: ModelHandle) -> None:
    seen: list[Tensor] = []

    def pack(keys: Tensor, values: Tensor, saliency: Tensor) -> tuple[Packed, Packed]:
        seen.append(keys)
        return coarse(keys, values, saliency)

    lm = CachedModel(builtin.language_model(), pack, block=BLOCK)
    text = lm.generate("Tom had", 20)
    written = lm.encode(text).shape[1]
    assert len(seen) // 6 == (written - 1) // BLOCK
    assert lm.generate("Tom had", 20) == text  # a new cache each time


def test_attention_is_that_of_the_model(builtin: ModelHandle, ids: Tensor) -> None:
    told: list[Tensor] = []

    def pack(keys: Tensor, values: Tensor, saliency: Tensor) -> tuple[Packed, Packed]:
        told.append(saliency)
        return halves(keys, values, saliency)

    lm = builtin.language_model()
    CachedModel(lm, pack, block=BLOCK, watches=True).read(ids)
    first = told[0]  # block 0 of layer 0, when it was packed
    with lm.lock:
        lm.module.set_attn_implementation("eager")
        try:
            with torch.no_grad():
                weights = lm.module(ids[:, :BLOCK], output_attentions=True).attentions[0][0]
        finally:
            lm.module.set_attn_implementation("sdpa")
    queries = torch.arange(BLOCK, 0, -1)  # token t is seen by the queries from t on
    torch.testing.assert_close(first, weights.mean(0).sum(0) / queries, rtol=1e-4, atol=1e-5)
    assert builtin.module.config._attn_implementation == "sdpa"


def test_later_queries_count_for_earlier_tokens() -> None:
    layer = build_layer_type()(halves, 2)
    layer.see(torch.tensor([[[[1.0, 0.0], [0.25, 0.75]]]]))
    layer.see(torch.tensor([[[[0.5, 0.25, 0.25]]]]))
    torch.testing.assert_close(layer.saliency(), torch.tensor([1.75 / 3, 1.0 / 2]))


@pytest.mark.parametrize("family", ["qwen3", "opt", "gpt2"])
def test_families(tiny_models: dict[str, Path], family: str) -> None:
    lm = open_model(tiny_models[family]).language_model()
    ids = lm.encode(STORY)[:, :30]
    cached = CachedModel(lm, halves, block=BLOCK, watches=True)
    logits, size = cached.read(ids)
    torch.testing.assert_close(logits, lm.logits(ids), rtol=2e-2, atol=2e-2)
    assert size.packed_tokens == 24


def test_attention_that_forgets_is_refused(tiny_models: dict[str, Path]) -> None:
    lm = open_model(tiny_models["gemma3"]).language_model()
    with pytest.raises(ModelError, match="attention over a window of 32 tokens; packed caches are for models"):
        CachedModel(lm, halves, block=BLOCK)


def test_a_text_beyond_the_context_is_refused(builtin: ModelHandle) -> None:
    lm = CachedModel(builtin.language_model(), halves, block=BLOCK)
    with pytest.raises(ModelError, match="600 tokens given, but the context is 512 tokens"):
        lm.read(torch.ones(1, 600, dtype=torch.int64))
    with pytest.raises(ModelError, match="a block of 0 tokens"):
        CachedModel(builtin.language_model(), halves, block=0)


def test_blocks_decode_to_what_was_seen(builtin: ModelHandle, ids: Tensor) -> None:
    """The copy that is kept for speed is the stored form and nothing else."""
    lm = CachedModel(builtin.language_model(), coarse, block=BLOCK)
    kept = lm._forward(ids[:, :BLOCK], lm._new_cache(), use_cache=True)[1]
    lm._forward(ids[:, BLOCK : BLOCK + 1], kept, use_cache=True)
    layer = kept.layers[2]
    (stored, _), (shown, _) = layer.blocks[0], layer.decoded[0]
    torch.testing.assert_close(shown[0].transpose(0, 1).reshape(BLOCK, -1), formats.decode(stored))
