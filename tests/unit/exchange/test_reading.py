"""Each decoder against the library of its format, or against values that were worked out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from tests.coded_checkpoints import FP4, pack_stream
from workbench.errors import ModelError
from workbench.exchange.reading import awq, bitnet, bitsandbytes, compressed_tensors, fp8, gptq, hqq, microscaling
from workbench.exchange.reading.coded_tensor import Source, StoredTensor, unpack_fields

GENERATOR = torch.Generator().manual_seed(0)


@settings(deadline=None)
@given(st.integers(1, 8), st.integers(1, 5), st.integers(1, 70), st.integers(0, 1000))
def test_fields_come_out_as_they_went_in(bits: int, rows: int, count: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 1 << bits, (rows, count))
    assert_close(unpack_fields(pack_stream(codes, bits), bits, count), torch.from_numpy(codes).int())


def test_three_bits_cross_words_as_gptq_packs_them() -> None:
    codes = np.random.default_rng(0).integers(0, 8, 32).astype(np.uint64)
    words = np.zeros(3, np.uint64)  # ten codes, two bits, one bit, ten codes, one bit, two bits, ten codes
    for place in range(10):
        words[0] |= codes[place] << np.uint64(3 * place)
        words[1] |= codes[11 + place] << np.uint64(3 * place + 1)
        words[2] |= codes[22 + place] << np.uint64(3 * place + 2)
    words[0] |= (codes[10] & np.uint64(3)) << np.uint64(30)
    words[1] |= codes[10] >> np.uint64(2) | (codes[21] & np.uint64(1)) << np.uint64(31)
    words[2] |= codes[21] >> np.uint64(1)
    stored = torch.from_numpy(words.astype(np.uint32).view(np.int32))[None]
    assert_close(unpack_fields(stored, 3, 32)[0], torch.from_numpy(codes.astype(np.int32)))


def test_gptq_by_hand() -> None:
    parts = {
        "qweight": torch.tensor([[0x76543210]], dtype=torch.int32),  # 8 columns of one row: 0 … 7
        "qzeros": torch.tensor([[2], [4]], dtype=torch.int32),
        "scales": torch.tensor([[0.5], [2.0]], dtype=torch.float16),
    }
    expected = torch.tensor([[-1.5, -1.0, -0.5, 0.0, -2.0, 0.0, 2.0, 4.0]])
    assert_close(gptq.decode_gptq(parts, 4, 1), expected)
    order = {**parts, "g_idx": torch.tensor([1, 0, 0, 0, 0, 1, 1, 1])}
    assert_close(gptq.decode_gptq(order, 4, 0), torch.tensor([[-8.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0, 6.0]]))


def test_awq_by_hand() -> None:
    parts = {
        "qweight": torch.tensor([[0x75316420]], dtype=torch.int32),  # one column of 8 rows: 0 … 7 in the order of the format
        "qzeros": torch.tensor([[0x11111111]], dtype=torch.int32),
        "scales": torch.full((1, 8), 0.5, dtype=torch.float16),
    }
    assert_close(awq.decode_awq(parts)[:, 0], 0.5 * torch.arange(-1.0, 7))


def test_fp8_by_hand() -> None:
    weight = torch.tensor([[1.0, -2.0, 4.0], [8.0, 0.5, 0.0]]).to(torch.float8_e4m3fn)
    blocks = {"weight": weight, "scale": torch.tensor([[2.0, 10.0]])}
    assert_close(fp8.decode_fp8(blocks, (2, 2)), torch.tensor([[2.0, -4.0, 40.0], [16.0, 1.0, 0.0]]))
    assert_close(fp8.decode_fp8({**blocks, "scale": torch.tensor(3.0)}, (2, 3)), weight.float() * 3)
    assert_close(
        fp8.decode_fp8({**blocks, "scale": torch.tensor([[1.0], [2.0]])}, (1, 3)), weight.float() * torch.tensor([[1.0], [2]])
    )


def test_bitnet_by_hand() -> None:
    packed = torch.tensor([[0b10100001, 0b00011000], [0b10010000, 0b00001010]], dtype=torch.uint8)
    rows = [[0, -1], [-1, 1], [-1, 1], [-1, 1], [1, 0], [0, -1], [1, -1], [1, -1]]
    assert_close(bitnet.unpack_trits(packed), torch.tensor(rows, dtype=torch.int8))
    parts = {"weight": packed, "weight_scale": torch.tensor([4.0])}
    assert_close(bitnet.decode_bitnet(parts, multiplies=False) * 16, bitnet.decode_bitnet(parts, multiplies=True))


def test_experts_are_what_transformers_decodes() -> None:
    from transformers.integrations.mxfp4 import _convert_moe_packed_tensors

    blocks = torch.randint(0, 256, (2, 6, 3, 16), dtype=torch.uint8, generator=GENERATOR)
    scales = torch.randint(120, 135, (2, 6, 3), dtype=torch.uint8, generator=GENERATOR)
    expected = _convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    assert_close(microscaling.decode_experts({"blocks": blocks, "scales": scales}), expected, rtol=0, atol=0)


def test_four_bit_floats_by_hand() -> None:
    content = torch.arange(16, dtype=torch.uint8)[None] * 17
    values = torch.tensor(FP4).repeat_interleave(2)[None]
    assert_close(microscaling.unpack_fp4(content), values)
    scale = torch.tensor([[126, 128]], dtype=torch.uint8)
    expected = values * torch.tensor([0.5, 2.0]).repeat_interleave(16)
    assert_close(microscaling.decode_mxfp4({"packed": content, "scale": scale}), expected)
    parts = {"packed": content, "scale": torch.tensor([[2.0, 4.0]]).to(torch.float8_e4m3fn), "global_scale": torch.tensor([8.0])}
    assert_close(microscaling.decode_nvfp4(parts), values * torch.tensor([0.25, 0.5]).repeat_interleave(16))


@pytest.mark.parametrize(("bits", "expected"), [(4, [1, 3, 2, 4]), (8, [0x12, 0x34])])
def test_hqq_by_hand(bits: int, expected: list[int]) -> None:
    parts = {
        "W_q": torch.tensor([[0x12], [0x34]], dtype=torch.uint8),
        "scale": torch.tensor([[2.0]]),
        "zero": torch.tensor([[0.5]]),
    }
    values = hqq.decode_hqq(parts, bits=bits, shape=(1, len(expected)))
    assert_close(values, 2 * (torch.tensor([expected]).float() - 0.5))


def scheme(kind: str, **weights: object) -> object:
    """A scheme of compressed-tensors for the weights of linear layers."""
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    return QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(type=kind, **weights))


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("symmetric", [True, False])
def test_packed_integers_are_what_compressed_tensors_decodes(bits: int, symmetric: bool) -> None:
    pytest.importorskip("compressed_tensors", reason="the library compressed-tensors is not installed; it is only a reference")
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor as Compressor

    chosen = scheme("int", num_bits=bits, strategy="group", group_size=32, symmetric=symmetric)
    state = {
        "weight": torch.randn(24, 96, generator=GENERATOR),
        "weight_scale": 0.01 + 0.1 * torch.rand(24, 3, generator=GENERATOR),
        "weight_zero_point": torch.randint(-2, 2, (24, 3), dtype=torch.int8, generator=GENERATOR),
    }
    stored = Compressor.compress(state, chosen)
    expected = Compressor.decompress(stored, chosen)["weight"]
    settings = {"format": "pack-quantized", "config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": bits}}}}
    assert_close(decode(settings, stored), expected, rtol=0, atol=0)


def decode(settings: dict[str, object], stored: dict[str, Tensor]) -> Tensor:
    """The weight of one layer that compressed-tensors stored."""
    tensors = {f"q.{name}": tensor for name, tensor in stored.items()}
    described = {name: StoredTensor(tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in tensors.items()}
    (coded,) = compressed_tensors.find_weights(Source("here", settings, described, tensors.__getitem__))
    return coded.decode({role: tensors[part] for role, part in coded.parts.items()})


@pytest.mark.parametrize(
    ("kind", "weights", "form"),
    [
        ("int", {"num_bits": 8, "strategy": "channel"}, "int-quantized"),
        ("int", {"num_bits": 8, "strategy": "tensor"}, "naive-quantized"),
        ("float", {"num_bits": 8, "strategy": "channel"}, "float-quantized"),
        ("float", {"num_bits": 8, "strategy": "block", "block_structure": [16, 48]}, "float-quantized"),
    ],
)
def test_plain_codes_are_what_compressed_tensors_decodes(kind: str, weights: dict[str, object], form: str) -> None:
    pytest.importorskip("compressed_tensors", reason="the library compressed-tensors is not installed; it is only a reference")
    from compressed_tensors.compressors.naive_quantized.base import NaiveQuantizationCompressor as Compressor

    chosen = scheme(kind, **weights, symmetric=True)
    shape = {"channel": (24, 1), "tensor": (1,), "block": (2, 2)}[str(weights["strategy"])]
    state = {
        "weight": torch.randn(24, 96, generator=GENERATOR),
        "weight_scale": 0.01 + 0.1 * torch.rand(shape, generator=GENERATOR),
        "weight_zero_point": torch.zeros(shape, dtype=torch.int8),
    }
    stored = Compressor.compress(state, chosen)
    expected = Compressor.decompress(stored, chosen)["weight"]
    settings = {"format": form, "config_groups": {"g": {"targets": ["Linear"], "weights": dict(weights)}}}
    assert_close(decode(settings, stored), expected.float(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [True, False])
def test_four_bits_are_what_bitsandbytes_decodes(kind: str, nested: bool) -> None:
    library = pytest.importorskip("bitsandbytes", reason="the library bitsandbytes is not installed; it is only a reference")
    weight = torch.randn(48, 128, generator=GENERATOR)
    codes, state = library.functional.quantize_4bit(weight, blocksize=64, quant_type=kind, compress_statistics=nested)
    expected = library.functional.dequantize_4bit(codes, state)
    tensors = {"q.weight": codes, **{f"q.weight.{name}": part for name, part in state.as_dict(packed=True).items()}}
    described = {name: StoredTensor(tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in tensors.items()}
    (coded,) = bitsandbytes.find_weights(Source("here", {}, described, tensors.__getitem__))
    values = coded.decode({role: tensors[part] for role, part in coded.parts.items()})
    assert_close(values, expected, rtol=1e-6, atol=1e-7)


def test_a_layer_that_no_group_names_is_refused() -> None:
    settings = {"format": "int-quantized", "config_groups": {"g": {"targets": ["re:.*mlp.*"], "weights": {"num_bits": 8}}}}
    stored = {"weight": torch.ones(4, 4, dtype=torch.int8), "weight_scale": torch.ones(4, 1)}
    with pytest.raises(ModelError, match="here has codes for 'q', which none of its config_groups names"):
        decode(settings, stored)
