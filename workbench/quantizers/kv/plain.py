"""Schemes `none`, `per-token`, `per-channel` and `kivi`: grids per token, per channel, or different ones for keys and values."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from workbench.kernels.packing.packed import Packed
from workbench.quantizers.kv.grids import KEPT_BITS, pack_by_columns, pack_by_rows, pack_float16
from workbench.quantizers.kv.scheme import Scheme
from workbench.recipe import setting
from workbench.registry import register

ALLOWED_BITS = (1, 2, 3, 4, 5, 6, 7, 8)


@register("kv", "none")
@dataclass(frozen=True)
class Whole(Scheme):
    """Keys and values in fp16, as caches usually are."""

    source: ClassVar[str] = "no compression"

    def pack(self, keys: Tensor, values: Tensor, saliency: Tensor) -> tuple[Packed, Packed]:
        """Both kept."""
        return pack_float16(keys), pack_float16(values)

    @property
    def nominal_bits(self) -> float:
        """16."""
        return float(KEPT_BITS)


@dataclass(frozen=True)
class Grid(Scheme):
    """What the plain schemes have in common: bits of a code."""

    bits: int = setting(4, "bits per code", choices=ALLOWED_BITS)

    @property
    def nominal_bits(self) -> float:
        """Bits of a code."""
        return float(self.bits)


@register("kv", "per-token")
@dataclass(frozen=True)
class PerToken(Grid):
    """A grid for each token, over `group` channels."""

    source: ClassVar[str] = "round to nearest, token by token"
    group: int = setting(0, "channels that share a scale; 0 is all heads of a token", low=0, high=65536)

    def pack(self, keys: Tensor, values: Tensor, saliency: Tensor) -> tuple[Packed, Packed]:
        """Both by rows."""
        return pack_by_rows(keys, self.bits, self.group), pack_by_rows(values, self.bits, self.group)


@register("kv", "per-channel")
@dataclass(frozen=True)
class PerChannel(Grid):
    """A grid for each channel, over the tokens of a block."""

    source: ClassVar[str] = "round to nearest, channel by channel"

    def pack(self, keys: Tensor, values: Tensor, saliency: Tensor) -> tuple[Packed, Packed]:
        """Both by columns."""
        return pack_by_columns(keys, self.bits), pack_by_columns(values, self.bits)


@register("kv", "kivi")
@dataclass(frozen=True)
class Kivi(Grid):
    """Keys channel by channel, since some channels of keys are large in every token; values token by token."""

    source: ClassVar[str] = "KIVI, arXiv 2402.02750"
    note: ClassVar[str] = (
        "As in the paper, the last tokens, up to one block, stay in fp16; the group size of channels is a setting."
    )
    group: int = setting(0, "channels of values that share a scale; 0 is all heads of a token", low=0, high=65536)

    def pack(self, keys: Tensor, values: Tensor, saliency: Tensor) -> tuple[Packed, Packed]:
        """Keys by columns, values by rows."""
        return pack_by_columns(keys, self.bits), pack_by_rows(values, self.bits, self.group)
