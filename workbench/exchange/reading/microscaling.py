"""4-bit floats with a scale a block: MXFP4 (powers of two, blocks of 32) as gpt-oss stores its experts, and NVFP4."""

from collections.abc import Mapping

import torch
from torch import Tensor

from workbench.exchange.reading.coded_tensor import CodedTensor, Source

FP4 = torch.tensor([0.0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
EXPONENT_BIAS = 127  # of a scale that is one byte: 2^(byte − 127)
BYTES_A_BLOCK = 16


def find_weights(source: Source) -> list[CodedTensor]:
    """The experts of a checkpoint as gpt-oss stores them: `…_blocks` and `…_scales`."""
    coded = []
    for name, tensor in source.tensors.items():
        if not name.endswith("_blocks"):
            continue
        owner, leaf = name.removesuffix("_blocks"), name.rpartition(".")[2]
        parts = source.take(owner, {"blocks": name, **_find_scales(source, owner)}, ("blocks", "scales"))
        if len(tensor.shape) != 4 or tensor.shape[-1] != BYTES_A_BLOCK or tensor.dtype != "uint8":
            raise source.describe(
                f"stores {leaf!r} as {list(tensor.shape)}; blocks of MXFP4 are [experts, rows, blocks, 16] bytes"
            )
        source.check_shape(parts["scales"], tensor.shape[:-1])
        experts, rows, blocks, _ = tensor.shape
        coded.append(CodedTensor(owner, (experts, blocks * 32, rows), "MXFP4", parts, decode_experts, stacked=True))
    return coded


def _find_scales(source: Source, owner: str) -> dict[str, str]:
    return {"scales": f"{owner}_scales"} if f"{owner}_scales" in source.tensors else {}


def decode_experts(parts: Mapping[str, Tensor]) -> Tensor:
    """Matrices `[…, cols, rows]` float32, as gpt-oss multiplies with them: a 4-bit float · 2^(scale − 127).

    Args:
        parts: `blocks [..., rows, n, 16]` uint8, two numbers a byte, the low one first, and `scales [..., rows, n]` uint8.

    Returns:
        The values, transposed.
    """
    values = unpack_fp4(parts["blocks"])
    scaled = torch.ldexp(values, parts["scales"].to(torch.int32)[..., None] - EXPONENT_BIAS)
    return scaled.flatten(-2).transpose(-1, -2).contiguous()


def unpack_fp4(content: Tensor) -> Tensor:
    """The 4-bit floats of bytes `[..., n]`, float32 `[..., 2 n]`, the low half of each byte first."""
    codes = torch.stack([content & 15, content >> 4], -1).flatten(-2)
    return FP4[codes.long()]


def decode_mxfp4(parts: Mapping[str, Tensor]) -> Tensor:
    """The weight `[rows, cols]` float32 of `packed [rows, cols / 2]` and one-byte scales `scale [rows, cols / 32]`."""
    values = unpack_fp4(parts["packed"])
    width = values.shape[1] // parts["scale"].shape[1]
    scale = parts["scale"].view(torch.uint8).to(torch.int32).repeat_interleave(width, 1)
    return torch.ldexp(values, scale - EXPONENT_BIAS)


def decode_nvfp4(parts: Mapping[str, Tensor]) -> Tensor:
    """The weight `[rows, cols]` float32 of `packed [rows, cols / 2]`, 8-bit `scale [rows, cols / 16]` over `global_scale`."""
    values = unpack_fp4(parts["packed"])
    scale = parts["scale"].float() / parts["global_scale"].float().reshape(())
    return values * scale.repeat_interleave(values.shape[1] // scale.shape[1], 1)
