"""Codes of other programs in the formats of this workbench, with the recipe that comes nearest to how they were made."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from workbench.exchange.reading.integer_codes import Codes, GridCodes, SignCodes, TritCodes
from workbench.kernels.packing import bitpack, tritpack
from workbench.kernels.packing.packed import Packed
from workbench.presets import recipe
from workbench.recipe import Recipe

TRIT_BITS = 1.584963  # log₂ 3, what papers count for a trit


def pack_codes(codes: Codes) -> tuple[Packed, float, Recipe] | str:
    """A matrix in the format for its codes.

    Args:
        codes: Whole numbers, trits or signs `[rows, cols]` with scales `[rows, groups]`.

    Returns:
        The stored form, its nominal bits a weight, and the recipe that makes matrices of this form; or the reason why the format
        cannot hold exactly these weights.
    """
    scales = codes.scales
    if not torch.equal(scales.half().float(), scales):
        return "its scales are not 16-bit floats"
    for kind, pack in PACKERS.items():
        if isinstance(codes, kind):
            return pack(codes)
    raise AssertionError(codes)


def _pack_grid(codes: GridCodes) -> tuple[Packed, float, Recipe] | str:
    """Format `uniform`: the zero points as codes, or as numbers where one is beyond the codes."""
    rows, cols = codes.codes.shape
    tensors = {"codes": bitpack.pack(codes.codes.to(torch.uint8), codes.bits), "scale": codes.scales.half()}
    symmetric = bool((codes.zeros == 1 << codes.bits - 1).all())
    inside = bool((codes.zeros >= 0).all()) and bool((codes.zeros < 1 << codes.bits).all())
    if inside and not symmetric:
        tensors["zero"] = bitpack.pack(codes.zeros.to(torch.uint8), codes.bits)
    elif not symmetric:
        tensors["offset"] = codes.zeros.half()
    packed = Packed("uniform", rows, cols, tensors, {"bits": codes.bits, "span": codes.span})
    kind = "integer" if inside or symmetric else "real"
    nearest = recipe("rtn", bits=codes.bits, group=_name_group(codes.span, cols), symmetric=symmetric, zero=kind)
    return packed, float(codes.bits), nearest


def _pack_trits(codes: TritCodes) -> tuple[Packed, float, Recipe] | str:
    """Format `ternary`, one plane."""
    if int(codes.trits.abs().max()) > 1:
        return "some of its codes are no trits"
    rows, cols = codes.trits.shape
    tensors = {"trits": tritpack.pack(codes.trits), "scale": codes.scales[None].half()}
    packed = Packed("ternary", rows, cols, tensors, {"planes": 1, "span": codes.span})
    return packed, TRIT_BITS, recipe("ternary", group=_name_group(codes.span, cols), rule="absmean", sweeps=0)


def _pack_signs(codes: SignCodes) -> tuple[Packed, float, Recipe] | str:
    """Format `planes`, one plane without a mean."""
    rows, cols = codes.signs.shape
    tensors = {"signs": bitpack.pack(codes.signs, 1), "scale": codes.scales[None].half()}
    packed = Packed("planes", rows, cols, tensors, {"planes": 1, "span": codes.span})
    return packed, 1.0, recipe("binary", group=_name_group(codes.span, cols), mean=False, sweeps=0)


def _name_group(span: int, cols: int) -> int:
    """The setting of a recipe for groups of `span` columns; 0 for a whole row."""
    return 0 if span >= cols else span


PACKERS: dict[type, Callable[[Any], tuple[Packed, float, Recipe] | str]] = {
    GridCodes: _pack_grid,
    TritCodes: _pack_trits,
    SignCodes: _pack_signs,
}


def is_equal(packed_weight: Tensor, weight: Tensor) -> bool:
    """Whether a stored form decodes to a matrix bit for bit; +0 and −0 are one number."""
    return torch.equal(packed_weight, weight.float())
