"""Format `rounded-input`: the layer's input is rounded to integers before the matmul.

The integers are turned back into numbers at once: the result is an integer kernel's up to float rounding, without its speed.
"""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from workbench.kernels.formats.transforms import Transformed
from workbench.kernels.packing.packed import Packed
from workbench.kernels.packing.tensor_spec import FactSpec, declare_integer
from workbench.registry import register

ROUNDED = "rounded-input"


@register("format", ROUNDED)
class RoundedInput(Transformed):
    """W' = W, x' = x rounded per token to fact `bits` bits: symmetric, scaled by the token's largest magnitude."""

    items: ClassVar = {}

    @classmethod
    def facts(cls, packed: Packed) -> Iterator[tuple[str, FactSpec]]:
        """See `Format`."""
        yield "bits", declare_integer(2, 16)

    @classmethod
    def input(cls, x: Tensor, packed: Packed) -> Tensor:
        """x rounded."""
        return round_per_token(x, packed.facts["bits"])

    @classmethod
    def multiply_adds(cls, packed: Packed) -> int:
        """One a column, to scale."""
        return packed.cols

    @classmethod
    def apply(cls, w: Tensor, packed: Packed) -> Tensor:
        """W."""
        return w

    @classmethod
    def undo(cls, w: Tensor, packed: Packed) -> Tensor:
        """W."""
        return w


def round_per_token(x: Tensor, bits: int) -> Tensor:
    """Each `[..., cols]` row to s · integers from −(2^(bits−1) − 1) to 2^(bits−1) − 1, s = max |x| over the largest of them."""
    largest = (1 << (bits - 1)) - 1
    values = x.to(torch.float32)
    scale = values.abs().amax(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) / largest
    return ((values / scale).round() * scale).to(x.dtype)


def split_at_rounding(packed: Packed) -> tuple[list[Packed], Packed]:
    """The wrappers whose input changes must run (down to the one that rounds), and what they hold; none where nothing rounds."""
    wrappers: list[Packed] = []
    node = packed
    while node.format != ROUNDED and len(node.children) == 1:
        wrappers.append(node)
        node = node.children[0]
    return ([*wrappers, node], node.children[0]) if node.format == ROUNDED else ([], packed)


def find_rounding_bits(packed: Packed) -> int | None:
    """Bits that the layer's input is rounded to, or None where it is not rounded."""
    wrappers, _ = split_at_rounding(packed)
    return wrappers[-1].facts["bits"] if wrappers else None
