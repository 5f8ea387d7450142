"""Schemes for key-value caches: what is stored decodes close to what was given, at the bits that the scheme states."""

import math

import pytest
import torch
from torch import Tensor

from workbench.errors import RecipeError
from workbench.kernels import formats
from workbench.kernels.packing.packed import Packed, build_ledger, count_stored_bits
from workbench.quantizers.kv import Scheme, list_schemes, make_scheme, parse
from workbench.quantizers.kv.rotated import compute_normal_levels

TOKENS, CHANNELS = 64, 128
EVERY = [*list_schemes(), "per-token:bits=1", "per-token:bits=2,group=32", "per-channel:bits=8", "zipcache:share=0",
         "zipcache:share=1",
         "vidkv:share=0", "vidkv:share=1", "rotated:bits=1,group=32"]  # fmt: skip


def drawn(seed: int = 0) -> Tensor:
    return torch.randn(TOKENS, CHANNELS, generator=torch.Generator().manual_seed(seed))


def error(x: Tensor, packed: Packed) -> float:
    return ((formats.decode(packed) - x).square().sum() / x.square().sum()).item()


def stored_columns(packed: Packed, own: Tensor) -> Packed:
    return Packed("dense", packed.rows, int(own.sum()), {"weight": formats.decode(packed)[:, own]})


def bits(packed: Packed) -> float:
    return build_ledger(packed, 0.0).bits_per_weight


@pytest.mark.parametrize("spelled", EVERY)
def test_what_is_stored_decodes_to_a_block(spelled: str) -> None:
    keys, values, how = drawn(0), drawn(1), parse(spelled)
    for x, packed in zip((keys, values), how.pack(keys, values, torch.rand(TOKENS)), strict=True):
        assert formats.decode(packed).shape == x.shape
        assert error(x, packed) < 0.45
        assert (
            sum(count_stored_bits(t) for _, node in packed.walk() for t in node.tensors.values())
            == build_ledger(packed, 0.0).total_bits
        )


@pytest.mark.parametrize("spelled", EVERY)
@pytest.mark.parametrize("fill", [0.0, 3.0, -1e4], ids=["zeros", "constant", "large"])
def test_blocks_without_variety(spelled: str, fill: float) -> None:
    x = torch.full((TOKENS, CHANNELS), fill)
    for packed in parse(spelled).pack(x, x, torch.zeros(TOKENS)):
        decoded = formats.decode(packed)
        assert decoded.isfinite().all()
        if not spelled.startswith("rotated"):  # which spreads a constant
            assert (decoded - x).abs().max() <= 0.02 * abs(fill) + 1e-3


@pytest.mark.parametrize("spelled", EVERY)
def test_one_token_is_a_block_too(spelled: str) -> None:
    x = drawn()[:1]
    for packed in parse(spelled).pack(x, x, torch.zeros(1)):
        assert formats.decode(packed).shape == x.shape


@pytest.mark.parametrize(
    ("spelled", "key_bits", "value_bits"),
    [
        pytest.param("none", 16, 16, id="none"),
        # offset and scale in fp16 and a zero point of b bits, for each channel of 64 tokens or token of 128 channels
        pytest.param("kivi:bits=4", 4 + 36 / 64, 4 + 36 / 128, id="kivi"),
        pytest.param("per-token:bits=2,group=32", 2 + 34 / 32, 2 + 34 / 32, id="groups"),
        pytest.param("zipcache:share=0", 2 + 34 / 64, 2 + 34 / 128 + 16 / 64, id="zipcache-without-salient-tokens"),
        # values: 5 trits to a byte and a scale a channel
        pytest.param("vidkv:share=0", 1 + 32 / 64, 8 / 5 + 16 / 64, id="vidkv"),
        pytest.param("rotated:bits=2", 2 + 16 / 128 + (128 + 64) / 8192, 2 + 16 / 128 + (128 + 64) / 8192, id="rotated"),
    ],
)
def test_stored_bits_are_the_codes_and_what_they_need(spelled: str, key_bits: float, value_bits: float) -> None:
    keys, values = parse(spelled).pack(drawn(0), drawn(1), torch.zeros(TOKENS))
    assert bits(keys) == pytest.approx(key_bits, abs=1e-3)
    assert bits(values) == pytest.approx(value_bits, abs=1e-3)


def test_salient_tokens_are_stored_finer() -> None:
    x, saliency = drawn(), torch.arange(TOKENS).float()
    for packed in make_scheme("zipcache", bits=2, salient=6, share=0.25).pack(x, x, saliency):
        lost = (formats.decode(packed) - x).square().mean(1)
        assert lost[-16:].max() < lost[:-16].min() / 10


def test_wide_channels_of_keys_are_stored_finer() -> None:
    x = drawn()
    x[:, :8] *= 20
    keys, _ = make_scheme("vidkv", share=8 / CHANNELS).pack(x, x, torch.zeros(TOKENS))
    assert keys.children[0].format == "rows"
    lost = (formats.decode(keys) - x).square().sum(0) / x.square().sum(0)
    assert lost[:8].mean() < 0.3 < 0.36 < lost[8:].mean() + 0.1


def test_the_repaired_transform_stores_one_code_a_value() -> None:
    """The released code's full transform has two real numbers for each value."""
    keys, _ = make_scheme("vidkv", share=0.0).pack(drawn(), drawn(), torch.zeros(TOKENS))
    codes = next(node.tensors["signs"] for _, node in keys.walk() if "signs" in node.tensors)
    assert codes.numel() * 8 == TOKENS * CHANNELS


@pytest.mark.parametrize(
    ("bits", "levels", "loss"), [(1, [0.7979], 0.36338), (2, [0.4528, 1.5104], 0.11748), (3, None, 0.03455), (4, None, 0.00950)]
)
def test_levels_are_lloyds_for_the_normal_law(bits: int, levels: list[float] | None, loss: float) -> None:
    found = compute_normal_levels(bits)
    if levels is not None:
        torch.testing.assert_close(found[len(levels) :], torch.tensor(levels), rtol=1e-3, atol=1e-3)
    x = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0))
    nearest = (x[:, None] - found).abs().amin(1)
    assert nearest.square().mean().item() == pytest.approx(loss, rel=0.01)


def test_rotation_takes_outliers_away() -> None:
    x = drawn()
    x[:, 5] *= 50
    stored = make_scheme("rotated", bits=3).pack(x, x, torch.zeros(TOKENS))[0]
    grid = make_scheme("per-token", bits=3).pack(x, x, torch.zeros(TOKENS))[0]
    assert error(x, stored) < 0.06
    rest = torch.arange(CHANNELS) != 5
    assert error(x[:, rest], stored_columns(grid, rest)) > 0.5  # the grid is all for the outlier


@pytest.mark.parametrize("name", list_schemes())
def test_every_scheme_says_where_it_comes_from(name: str) -> None:
    how: Scheme = make_scheme(name)
    assert how.source
    assert type(how).__doc__
    assert how.spelled() == (f"{name}:bits={how.bits}" if hasattr(how, "bits") else name)
    assert parse(how.spelled()) == how


def test_spelling_goes_both_ways() -> None:
    how = parse("zipcache:bits=3,share=0.5")
    assert (how.spelled(), how) == ("zipcache:bits=3,share=0.5", make_scheme("zipcache", bits=3, share=0.5))
    assert how.nominal_bits == pytest.approx(3.5)
    assert math.isclose(make_scheme("vidkv").nominal_bits, (1.5 + math.log2(3)) / 2)


@pytest.mark.parametrize(
    ("spelled", "message"),
    [
        ("zipcash", "unknown kv 'zipcash'. Did you mean 'zipcache'"),
        ("kivi:bits", "'bits' is not key=value; write for example kivi:bits=2"),
        ("kivi:bits=two", "kv 'kivi': bits is 'two'; a number is needed"),
        ("kivi:bits=9", "kv 'kivi': bits is 9; use one of 1, 2"),
        ("kivi:bit=2", "unknown field 'bit'. Did you mean 'bits'"),
    ],
)
def test_a_mistake_is_named(spelled: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        parse(spelled)
