"""Checkpoints of tiny models as other programs quantize them, packed in plain numpy, with the values of each layer."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

GROUP = 32
Encoded = tuple[dict[str, Tensor], Tensor]  # tensors by what follows the module's name, and the values
FP4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]


@dataclass(frozen=True)
class Method:
    """A way to quantize a weight `[rows, cols]`, and what config.json says about it."""

    settings: Mapping[str, Any]
    encode: Callable[[Tensor, np.random.Generator], Encoded]


def pack_stream(codes: np.ndarray, bits: int) -> Tensor:
    """Rows of codes as rows of int32, each a stream of bits, the lowest first."""
    flat = (codes[..., None] >> np.arange(bits)) & 1
    content = np.packbits(flat.reshape(len(codes), -1).astype(np.uint8), axis=1, bitorder="little")
    content = np.pad(content, ((0, 0), (0, -content.shape[1] % 4)))
    return torch.from_numpy(np.ascontiguousarray(content).view(np.int32))


def draw(weight: Tensor, bits: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random codes `[rows, cols]`, zero points and fp16 scales `[rows, groups]`."""
    rows, cols = weight.shape
    codes = rng.integers(0, 1 << bits, (rows, cols))
    zeros = rng.integers(1, 1 << bits, (rows, cols // GROUP))
    scales = rng.uniform(0.01, 0.03, (rows, cols // GROUP)).astype(np.float16)
    return codes, zeros, scales


def values(codes: np.ndarray, zeros: np.ndarray, scales: np.ndarray, group: np.ndarray | None = None) -> Tensor:
    """Scale · (code − zero point) in float32."""
    group = np.arange(codes.shape[1]) // GROUP if group is None else group
    return torch.from_numpy(scales.astype(np.float32)[:, group] * (codes - zeros[:, group]).astype(np.float32))


def gptq(bits: int, version: int = 1, *, ordered: bool = False) -> Method:
    def encode(weight: Tensor, rng: np.random.Generator) -> Encoded:
        codes, zeros, scales = draw(weight, bits, rng)
        group = rng.permutation(np.arange(codes.shape[1]) // GROUP) if ordered else np.arange(codes.shape[1]) // GROUP
        tensors = {
            "qweight": pack_stream(codes, bits).T.contiguous(),
            "qzeros": pack_stream(zeros.T - (version == 1), bits),
            "scales": torch.from_numpy(scales.T.copy()),
            "g_idx": torch.from_numpy(group.astype(np.int32)),
        }
        return tensors, values(codes, zeros, scales, group)

    facts = {"quant_method": "gptq", "bits": bits, "group_size": GROUP, "desc_act": ordered, "sym": False}
    return Method(facts | ({} if version == 1 else {"checkpoint_format": "gptq_v2"}), encode)


def encode_awq(weight: Tensor, rng: np.random.Generator) -> Encoded:
    codes, zeros, scales = draw(weight, 4, rng)

    def pack(numbers: np.ndarray) -> Tensor:
        words = np.zeros((len(numbers), numbers.shape[1] // 8), np.uint32)
        for place, output in enumerate([0, 2, 4, 6, 1, 3, 5, 7]):
            words |= numbers[:, output::8].astype(np.uint32) << np.uint32(4 * place)
        return torch.from_numpy(words.view(np.int32))

    tensors = {"qweight": pack(codes.T), "qzeros": pack(zeros.T), "scales": torch.from_numpy(scales.T.copy())}
    return tensors, values(codes, zeros, scales)


def encode_fp8(block: int | None) -> Callable[[Tensor, np.random.Generator], Encoded]:
    def encode(weight: Tensor, rng: np.random.Generator) -> Encoded:
        rows, cols = weight.shape
        coded = (weight * 100).to(torch.float8_e4m3fn)
        shape = (rows, 1) if block is None else (-(-rows // block), -(-cols // block))
        scale = torch.from_numpy(rng.uniform(0.01, 0.03, shape).astype(np.float32))
        spread = scale if block is None else scale.repeat_interleave(block, 0).repeat_interleave(block, 1)[:rows, :cols]
        tensors = {"weight": coded, "weight_scale" if block is None else "weight_scale_inv": scale}
        return tensors, coded.float() * spread

    return encode


def encode_bitnet(weight: Tensor, rng: np.random.Generator) -> Encoded:
    trits = rng.integers(-1, 2, tuple(weight.shape))
    quarter = len(trits) // 4
    content = sum((trits[part * quarter : (part + 1) * quarter] + 1) << 2 * part for part in range(4))
    scale = torch.tensor([24.0])
    tensors = {"weight": torch.from_numpy(np.asarray(content).astype(np.uint8)), "weight_scale": scale}
    return tensors, torch.from_numpy(trits.astype(np.float32)) * (1 / scale)


def encode_int8(weight: Tensor, rng: np.random.Generator) -> Encoded:
    codes = rng.integers(-127, 128, tuple(weight.shape)).astype(np.int8)
    largest = torch.from_numpy(rng.uniform(0.1, 0.3, len(codes)).astype(np.float32))
    tensors = {"weight": torch.from_numpy(codes), "SCB": largest, "weight_format": torch.tensor(0, dtype=torch.uint8)}
    return tensors, torch.from_numpy(codes.astype(np.float32)) * (largest / 127)[:, None]


def encode_nf4(weight: Tensor, rng: np.random.Generator, block: int = 64, nested: int = 256) -> Encoded:
    rows, cols = weight.shape
    table = np.sort(rng.uniform(-1, 1, 16)).astype(np.float32)
    codes = rng.integers(0, 16, rows * cols)
    count = rows * cols // block
    coarse = np.sort(rng.uniform(-1, 1, 256)).astype(np.float32)
    fine, outer = rng.integers(0, 256, count).astype(np.uint8), rng.uniform(0.01, 0.02, -(-count // nested)).astype(np.float32)
    absmax = coarse[fine] * np.repeat(outer, nested)[:count] + np.float32(0.05)
    facts = {"quant_type": "nf4", "blocksize": block, "dtype": "float16", "shape": [rows, cols],
             "nested_blocksize": nested, "nested_dtype": "float32", "nested_offset": 0.05}  # fmt: skip
    tensors = {
        "weight": torch.from_numpy((codes[0::2] << 4 | codes[1::2]).astype(np.uint8)[:, None]),
        "weight.absmax": torch.from_numpy(fine),
        "weight.quant_map": torch.from_numpy(table),
        "weight.nested_absmax": torch.from_numpy(outer),
        "weight.nested_quant_map": torch.from_numpy(coarse),
        "weight.quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(facts).encode()), dtype=torch.uint8),
    }
    return tensors, torch.from_numpy(table[codes] * np.repeat(absmax, block).astype(np.float32)).view(rows, cols)


def hqq(bits: int, axis: int) -> Method:
    def encode(weight: Tensor, rng: np.random.Generator) -> Encoded:
        rows, cols = weight.shape
        shape = (rows * cols // GROUP, GROUP) if axis == 1 else (GROUP, rows * cols // GROUP)
        codes = rng.integers(0, 1 << bits, shape)
        side = (shape[0], 1) if axis == 1 else (1, shape[1])
        scale, zero = (torch.from_numpy(rng.uniform(0.01, 0.03, side).astype(np.float16)) * factor for factor in (1, 100))
        count, width = (10, 32) if bits == 3 else (8 // bits, 8)
        padded = np.pad(codes, ((0, -len(codes) % count), (0, 0)))
        parts = padded.reshape(count, -1, shape[1])
        words = sum(part << bits * (count - 1 - place) for place, part in enumerate(parts))
        numbers = {"nbits": bits, "axis": axis, "group_size": GROUP}
        tensors = {
            "W_q": torch.from_numpy(np.asarray(words).astype(np.int32 if width == 32 else np.uint8)),
            "scale": scale,
            "zero": zero,
            "shape": torch.tensor([rows, cols]),
            **{name: torch.tensor(number, dtype=torch.int32) for name, number in numbers.items()},
        }
        return tensors, ((torch.from_numpy(codes).float() - zero.float()) * scale.float()).view(rows, cols)

    return Method({"quant_method": "hqq"}, encode)


def packed_integers(bits: int, *, symmetric: bool) -> Method:
    def encode(weight: Tensor, rng: np.random.Generator) -> Encoded:
        codes, zeros, scales = draw(weight, bits, rng)
        zeros = np.full_like(zeros, 1 << bits - 1) if symmetric else zeros
        tensors = {
            "weight_packed": pack_stream(codes, bits),
            "weight_scale": torch.from_numpy(scales),
            "weight_shape": torch.tensor(weight.shape),
        }
        if not symmetric:
            tensors["weight_zero_point"] = pack_stream(zeros.T, bits).T.contiguous()
        return tensors, values(codes, zeros, scales)

    weights = {"num_bits": bits, "type": "int", "strategy": "group", "group_size": GROUP, "symmetric": symmetric}
    group = {"targets": ["Linear"], "weights": weights}
    facts = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": group}}
    return Method(facts, encode)


METHODS: dict[str, Method] = {
    **{f"gptq-{bits}": gptq(bits) for bits in (2, 3, 4, 8)},
    "gptq-v2": gptq(4, 2),
    "gptq-order": gptq(4, ordered=True),
    "awq": Method({"quant_method": "awq", "bits": 4, "version": "gemm"}, encode_awq),
    "fp8-blocks": Method({"quant_method": "fp8", "weight_block_size": [48, 48]}, encode_fp8(48)),
    "fp8-rows": Method({"quant_method": "fbgemm_fp8"}, encode_fp8(None)),
    "bitnet": Method({"quant_method": "bitnet"}, encode_bitnet),
    "int8": Method({"quant_method": "bitsandbytes", "load_in_8bit": True}, encode_int8),
    "nf4": Method({"quant_method": "bitsandbytes", "load_in_4bit": True}, encode_nf4),
    **{f"hqq-{bits}": hqq(bits, 1) for bits in (1, 2, 3, 4, 8)},
    "hqq-columns": hqq(4, 0),
    **{f"packed-{bits}": packed_integers(bits, symmetric=True) for bits in (3, 4, 8)},
    "packed-zeros": packed_integers(4, symmetric=False),
}


def write_coded(folder: Path, method: Method, seed: int = 0) -> dict[str, Tensor]:
    """Quantize the layers in the blocks of the model in `folder`, in place; the values that each weight stands for."""
    rng, tensors, expected = np.random.default_rng(seed), {}, {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        owner = name.removesuffix(".weight")
        if owner.endswith("_proj"):
            parts, expected[name] = method.encode(tensor.float(), rng)
            tensors |= {f"{owner}.{leaf}": part.contiguous() for leaf, part in parts.items()}
        else:
            tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": dict(method.settings)}))
    return expected
