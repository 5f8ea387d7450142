"""Checkpoints of the library compressed-tensors: packed or plain integers, 8-bit floats, and 4-bit floats with block scales.

`config_groups` says which layers are coded how; a layer whose tensors are plain is left as it is.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from workbench.exchange.reading.coded_tensor import CodedTensor, Source, spread_groups, unpack_fields
from workbench.exchange.reading.fp8 import decode_fp8
from workbench.exchange.reading.integer_codes import Codes, GridCodes
from workbench.exchange.reading.microscaling import decode_mxfp4, decode_nvfp4
from workbench.json_value import shorten_value

INTEGERS = ("pack-quantized", "int-quantized", "naive-quantized")
FORMATS = (*INTEGERS, "float-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized", "mixed-precision")
REGEX = "re:"
UNREAD = ("transform_config", "sparsity_config")  # that change what the weights mean


@dataclass(frozen=True)
class Scheme:
    """How the layers of a group are coded: their targets, the format, the bits of a code, and the block that shares a scale."""

    targets: tuple[str, ...]
    format: str
    bits: int
    block: tuple[int, int] | None

    def rank(self, owner: str) -> int:
        """How closely a target names this layer: 0 not at all, 1 by its class, 2 by a pattern, 3 by its name."""
        ranks = [0]
        for target in self.targets:
            if target.startswith(REGEX):
                ranks.append(2 if re.match(target.removeprefix(REGEX), owner) else 0)
            else:
                ranks.append(3 if owner == target or owner.endswith(f".{target}") else 1 if "." not in target else 0)
        return max(ranks)


def find_weights(source: Source) -> list[CodedTensor]:
    """The weights of a checkpoint of compressed-tensors; ModelError for a format, or a group, that is not read."""
    unread = [name for name in UNREAD if _is_active(source.settings.get(name))]
    if unread:
        raise source.describe(f"has a {unread[0]}, which changes what its weights mean and is not read")
    schemes = _read_schemes(source)
    coded = []
    for owner, parts in {**source.group("weight_packed"), **source.group("weight_scale")}.items():
        scheme = max(schemes, key=lambda scheme: scheme.rank(owner))
        if not scheme.rank(owner):
            raise source.describe(f"has codes for {owner!r}, which none of its config_groups names")
        coded.append(_find_weight(source, owner, parts, scheme))
    return coded


def _is_active(settings: Any) -> bool:
    """Whether a part of the configuration says more than that there is nothing of its kind."""
    return bool(settings) and not (
        isinstance(settings, dict) and settings.get("format") in ("dense", None) and "config_groups" not in settings
    )


def _read_schemes(source: Source) -> list[Scheme]:
    """The groups of layers that the configuration names."""
    groups = source.settings.get("config_groups")
    if not isinstance(groups, dict) or not groups:
        raise source.describe("is compressed-tensors without config_groups, which say how its layers are coded")
    return [_read_scheme(source, name, group if isinstance(group, dict) else {}) for name, group in groups.items()]


def _read_scheme(source: Source, name: str, group: Mapping[str, Any]) -> Scheme:
    """One group of layers."""
    weights = group["weights"] if isinstance(group.get("weights"), dict) else {}
    targets, bits, block = group.get("targets"), weights.get("num_bits"), weights.get("block_structure")
    chosen = group.get("format") or source.settings.get("format")
    is_read = isinstance(targets, list) and all(isinstance(target, str) for target in targets)
    if not isinstance(targets, list) or not is_read or chosen not in FORMATS or type(bits) is not int or not 1 <= bits <= 8:
        facts = f"format {shorten_value(chosen)}, num_bits {shorten_value(bits)}, targets {shorten_value(targets)}"
        raise source.describe(f"says {facts} in {shorten_value(name)}; the formats read are {', '.join(FORMATS)}, of 1 to 8 bits")
    sizes = [size for size in block if type(size) is int and size > 0] if isinstance(block, list) else []
    return Scheme(tuple(targets), chosen, bits, (sizes[0], sizes[1]) if len(sizes) == 2 else None)


def _find_weight(source: Source, owner: str, parts: Mapping[str, str], scheme: Scheme) -> CodedTensor:
    """One layer's weight, by what is stored for it."""
    name, packed = f"{owner}.weight", "weight_packed" in parts
    chosen = source.take(owner, parts, ("weight_packed" if packed else "weight", "weight_scale"))
    stored = source.tensors[chosen["weight_packed" if packed else "weight"]]
    if packed and stored.dtype == "uint8":
        return _find_floats(source, owner, parts, scheme)
    if not packed and stored.dtype.startswith("float8"):
        block, named = scheme.block or (1, stored.shape[1]), {"weight": chosen["weight"], "scale": chosen["weight_scale"]}
        if scheme.block:
            rows, cols = stored.shape
            source.check_shape(named["scale"], (-(-rows // block[0]), -(-cols // block[1])))
        else:
            _check_scales(source, named["scale"], stored.shape[0])
        return CodedTensor(name, stored.shape, "FP8", named, partial(decode_fp8, block=block))
    _check_scales(source, chosen["weight_scale"], stored.shape[0])
    chosen |= {leaf: parts[leaf] for leaf in ("weight_zero_point", "weight_g_idx", "weight_shape") if leaf in parts}
    if not packed:
        split = partial(take_integer_codes, bits=scheme.bits, cols=stored.shape[1], spaced=False)
        return CodedTensor(name, stored.shape, f"INT{scheme.bits}", chosen, decode_integers, split=split)
    source.take(owner, parts, ("weight_shape",))
    source.check_shape(chosen["weight_shape"], (2,))
    rows, cols = (int(size) for size in source.read(chosen.pop("weight_shape")).tolist())
    dense, spaced = -(-cols * scheme.bits // 32), -(-cols // (32 // scheme.bits))
    if stored.shape not in ((rows, dense), (rows, spaced)):
        raise source.describe(f"stores {chosen['weight_packed']!r} as {list(stored.shape)}, not as {rows} rows of {dense} words")
    if "weight_zero_point" in chosen and source.tensors[chosen["weight_zero_point"]].dtype == "int32":
        groups = source.tensors[chosen["weight_scale"]].shape[-1]
        words = [-(-rows * scheme.bits // 32), -(-rows // (32 // scheme.bits))]
        source.check_shape(chosen["weight_zero_point"], (words[int(stored.shape[1] != dense)], groups))
    decode = partial(decode_packed, bits=scheme.bits, cols=cols, spaced=stored.shape[1] != dense)
    split = partial(take_integer_codes, bits=scheme.bits, cols=cols, spaced=stored.shape[1] != dense)
    return CodedTensor(name, (rows, cols), f"INT{scheme.bits}", chosen, decode, split=split)


def _check_scales(source: Source, name: str, rows: int) -> None:
    """ModelError unless scales are one alone, or one or several a row."""
    shape = source.tensors[name].shape
    if set(shape) - {1} and (len(shape) > 2 or shape[0] != rows):
        raise source.describe(f"stores {name!r} as {list(shape)}, which is no scale for {rows:,} rows")


def _find_floats(source: Source, owner: str, parts: Mapping[str, str], scheme: Scheme) -> CodedTensor:
    """A weight of 4-bit floats."""
    rows, half = source.tensors[parts["weight_packed"]].shape
    named = {"packed": parts["weight_packed"], "scale": parts["weight_scale"]}
    if scheme.format == "mxfp4-pack-quantized":
        return CodedTensor(f"{owner}.weight", (rows, 2 * half), "MXFP4", named, decode_mxfp4)
    if scheme.format != "nvfp4-pack-quantized":
        raise source.describe(f"stores bytes for {owner!r}, which the format {scheme.format!r} does not have")
    named["global_scale"] = source.take(owner, parts, ("weight_global_scale",))["weight_global_scale"]
    return CodedTensor(f"{owner}.weight", (rows, 2 * half), "NVFP4", named, decode_nvfp4)


def decode_packed(parts: Mapping[str, Tensor], *, bits: int, cols: int, spaced: bool) -> Tensor:
    """The weight `[rows, cols]` float32 of integers that are packed into words.

    Args:
        parts: `weight_packed [rows, words]`, `weight_scale`, and where there are any `weight_zero_point` and `weight_g_idx`.
        bits: Bits of a code, which is stored plus half its range.
        cols: Columns of the weight.
        spaced: Whether a word holds only whole codes, as older versions of the library wrote them.

    Returns:
        The values.
    """
    codes, zeros = _unpack_codes(parts, bits, cols, spaced=spaced)
    return _scale(codes, zeros, parts["weight_scale"], parts.get("weight_g_idx"))


def take_integer_codes(parts: Mapping[str, Tensor], *, bits: int, cols: int, spaced: bool) -> Codes | str:
    """The codes counted from 0, or the reason why groups of columns that are not side by side are none that are stored here."""
    if "weight_g_idx" in parts and bool((parts["weight_g_idx"].diff() < 0).any()):
        return "its groups are columns in an order of their own (actorder)"
    codes, zeros = _unpack_codes(parts, bits, cols, spaced=spaced)
    middle, rows, scales = 1 << bits - 1, len(codes), parts["weight_scale"].float()
    scales = scales.expand(rows, 1) if scales.numel() == 1 else scales.reshape(rows, -1)
    if zeros is None:
        zeros = torch.zeros_like(scales)
    zeros = zeros.expand(rows, 1) if zeros.numel() == 1 else zeros.reshape(rows, -1)
    span = -(-cols // scales.shape[1])
    return GridCodes(codes.int() + middle, zeros.int() + middle, scales, bits, span)


def _unpack_codes(parts: Mapping[str, Tensor], bits: int, cols: int, *, spaced: bool) -> tuple[Tensor, Tensor | None]:
    """Signed codes `[rows, cols]`, and zero points where there are any."""
    zeros = parts.get("weight_zero_point")
    if "weight_packed" not in parts:
        return parts["weight"], zeros
    if zeros is not None and zeros.dtype == torch.int32:
        rows = len(parts["weight_packed"])
        zeros = _unpack(zeros.T, bits, rows, spaced=zeros.shape[0] != -(-rows * bits // 32)).T
    return _unpack(parts["weight_packed"], bits, cols, spaced=spaced), zeros


def _unpack(words: Tensor, bits: int, count: int, *, spaced: bool) -> Tensor:
    """Signed codes int32 `[rows, count]`."""
    if spaced:
        fields = unpack_fields(words.reshape(-1, 1), bits, 32 // bits).view(len(words), -1)[:, :count]
    else:
        fields = unpack_fields(words, bits, count)
    return fields - (1 << bits - 1)


def decode_integers(parts: Mapping[str, Tensor]) -> Tensor:
    """The weight float32 of integers, or 8-bit floats, `weight [rows, cols]`, and their `weight_scale`."""
    return _scale(parts["weight"], parts.get("weight_zero_point"), parts["weight_scale"], parts.get("weight_g_idx"))


def _scale(codes: Tensor, zeros: Tensor | None, scales: Tensor, groups: Tensor | None) -> Tensor:
    """Scale · (code − zero point), with values a matrix, a row, or a group of columns."""
    cols = codes.shape[-1]

    def spread(values: Tensor) -> Tensor:
        values = values.float()
        if values.numel() == 1 or values.ndim < 2 or values.shape[-1] == 1:
            return values.reshape(-1, 1) if values.numel() > 1 else values.reshape(())
        return values[:, groups.long()] if groups is not None else spread_groups(values, cols)

    values = codes.float() if zeros is None else codes.float() - spread(zeros)
    return values * spread(scales)
