"""AWQ checkpoints in the layout "gemm": 4-bit codes of 8 outputs in a word, in an order that suited a GPU's kernel."""

from collections.abc import Mapping

import torch
from torch import Tensor

from workbench.exchange.reading.coded_tensor import CodedTensor, Source, unpack_fields
from workbench.exchange.reading.integer_codes import Codes, GridCodes

ORDER = (0, 4, 1, 5, 2, 6, 3, 7)  # in which nibble of a word the code of each of 8 outputs lies
PARTS = ("qweight", "qzeros", "scales")


def find_weights(source: Source) -> list[CodedTensor]:
    """The weights of an AWQ checkpoint; ModelError for another layout or width."""
    source.read_choice("bits" if "bits" in source.settings else "w_bit", (4,))
    layout = str(source.settings.get("version") or source.settings.get("format") or "gemm").lower()
    if layout != "gemm":
        raise source.describe(f"is AWQ in the layout {layout!r}; the layout gemm is read")
    coded = []
    for owner, parts in source.group("qweight").items():
        chosen = source.take(owner, parts, PARTS)
        cols, words = source.tensors[chosen["qweight"]].shape
        groups = source.tensors[chosen["scales"]].shape[0]
        source.check_shape(chosen["scales"], (groups, words * 8))
        source.check_shape(chosen["qzeros"], (groups, words))
        coded.append(CodedTensor(f"{owner}.weight", (words * 8, cols), "AWQ 4 bits", chosen, decode_awq, split=take_awq_codes))
    return coded


def decode_awq(parts: Mapping[str, Tensor]) -> Tensor:
    """The weight `[rows, cols]` float32: scale · (code − zero point), groups along the columns.

    Args:
        parts: `qweight [cols, rows / 8]`, `qzeros [groups, rows / 8]`, `scales [groups, rows]`.

    Returns:
        The values.
    """
    codes, zeros, scales = split_awq(parts)
    width = -(-codes.shape[1] // scales.shape[1])
    group = torch.arange(codes.shape[1]) // width
    return scales[:, group] * (codes - zeros[:, group])


def take_awq_codes(parts: Mapping[str, Tensor]) -> Codes:
    """The codes as whole numbers."""
    codes, zeros, scales = split_awq(parts)
    return GridCodes(codes, zeros, scales, 4, -(-codes.shape[1] // scales.shape[1]))


def split_awq(parts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Codes `[rows, cols]`, zero points and scales float32 `[rows, groups]`."""
    return _unpack(parts["qweight"]).T, _unpack(parts["qzeros"]).T, parts["scales"].float().T


def _unpack(words: Tensor) -> Tensor:
    """The codes of words `[n, rows / 8]` in the order of the outputs, `[n, rows]`."""
    return unpack_fields(words, 4, words.shape[1] * 8).unflatten(1, (-1, 8))[:, :, ORDER].flatten(1)
