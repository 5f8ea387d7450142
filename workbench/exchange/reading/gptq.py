"""GPTQ checkpoints: `qweight`, `qzeros`, `scales` and, where columns were quantized in an order of their own, `g_idx`.

Codes are a stream of bits down each output's inputs. Zero points are stored less 1 in the first version of the format ("gptq")
and as they are in the second ("gptq_v2").
"""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from workbench.exchange.reading.coded_tensor import CodedTensor, Source, unpack_fields
from workbench.exchange.reading.integer_codes import Codes, GridCodes

GPTQ_BITS = (2, 3, 4, 8)
GPTQ_VERSIONS = {"gptq": 1, "": 1, "gptq_v2": 0}  # what is added to a stored zero point
PARTS = ("qweight", "qzeros", "scales")


def find_weights(source: Source) -> list[CodedTensor]:
    """The weights of a GPTQ checkpoint; ModelError for another layout of the same name."""
    bits = source.read_choice("bits", GPTQ_BITS)
    version = source.settings.get("checkpoint_format") or ""
    if version not in GPTQ_VERSIONS or source.settings.get("is_marlin_format"):
        raise source.describe(f"is GPTQ in the layout {version or 'marlin'!r}; the layouts gptq and gptq_v2 are read")
    if source.settings.get("dynamic"):
        raise source.describe("is GPTQ with settings of their own for some layers (dynamic), which is not read")
    coded = []
    for owner, parts in source.group("qweight").items():
        chosen = source.take(owner, parts, PARTS) | ({"g_idx": parts["g_idx"]} if "g_idx" in parts else {})
        groups, rows = source.tensors[chosen["scales"]].shape
        cols = source.tensors[chosen["qweight"]].shape[0] * 32 // bits
        source.check_shape(chosen["qweight"], (cols * bits // 32, rows))
        source.check_shape(chosen["qzeros"], (groups, -(-rows * bits // 32)))
        if "g_idx" in chosen:
            source.check_shape(chosen["g_idx"], (cols,))
        decode = partial(decode_gptq, bits=bits, offset=GPTQ_VERSIONS[version])
        coded.append(
            CodedTensor(
                f"{owner}.weight",
                (rows, cols),
                f"GPTQ {bits} bits",
                chosen,
                decode,
                split=partial(take_gptq_codes, bits=bits, offset=GPTQ_VERSIONS[version]),
            )
        )
    return coded


def decode_gptq(parts: Mapping[str, Tensor], bits: int, offset: int) -> Tensor:
    """The weight `[rows, cols]` float32: scale · (code − zero point − offset), groups along the columns.

    Args:
        parts: `qweight [cols · bits / 32, rows]`, `qzeros [groups, rows · bits / 32]`, `scales [groups, rows]`, and
            `g_idx [cols]`, the group of each column, where groups are not simply one after the other.
        bits: Bits of a code.
        offset: What the format leaves out of its zero points.

    Returns:
        The values.
    """
    codes, zeros, scales, group = split_gptq(parts, bits)
    return (scales[:, group] * (codes - zeros[:, group] - offset)).contiguous()


def take_gptq_codes(parts: Mapping[str, Tensor], bits: int, offset: int) -> Codes | str:
    """The codes, or the reason why groups of columns that are not side by side are none that are stored here."""
    codes, zeros, scales, group = split_gptq(parts, bits)
    span = -(-codes.shape[1] // scales.shape[1])
    if not torch.equal(group, torch.arange(codes.shape[1]) // span):
        return "its groups are columns in an order of their own (desc_act)"
    return GridCodes(codes, zeros + offset, scales, bits, span)


def split_gptq(parts: Mapping[str, Tensor], bits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes `[rows, cols]`, stored zero points and scales float32 `[rows, groups]`, and the group of each column."""
    scales = parts["scales"].float().T
    cols = parts["qweight"].shape[0] * 32 // bits
    codes = unpack_fields(parts["qweight"].T, bits, cols)
    zeros = unpack_fields(parts["qzeros"], bits, len(scales)).T
    group = parts["g_idx"].long() if "g_idx" in parts else torch.arange(cols) // -(-cols // scales.shape[1])
    if not 0 <= int(group.min()) <= int(group.max()) < scales.shape[1]:
        raise IndexError(f"its columns name groups from {int(group.min())} to {int(group.max())} of {scales.shape[1]}")
    return codes, zeros, scales, group
