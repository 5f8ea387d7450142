"""Scheme `vidkv`: 1.5 bits for keys with two kinds of channels, 1.58 bits for values with trits."""

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from workbench.kernels.formats.arranged import fourier
from workbench.kernels.packing.packed import Packed
from workbench.quantizers.coders.ternary import Ternary
from workbench.quantizers.kv.grids import (
    pack_by_columns,
    pack_by_rows,
    pack_transposed,
    pack_with_coder,
    select_highest,
    split_rows,
)
from workbench.quantizers.kv.scheme import Scheme
from workbench.recipe import setting
from workbench.registry import register


@register("kv", "vidkv")
@dataclass(frozen=True)
class VidKV(Scheme):
    """Keys: the `share` of channels with the largest range on 4 levels, the others on 2 after a Fourier transform across them.

    Values: trits, channel by channel, 1.6 bits as stored.
    """

    source: ClassVar[str] = "VidKV, arXiv 2503.16257"
    note: ClassVar[str] = (
        "The released code keeps real and imaginary parts of all frequencies, two codes for each value; a real signal needs half "
        "of them, and this stores one. Its selection of visual tokens by the text does not apply without video."
    )
    share: float = setting(0.5, "share of key channels with 4 levels", low=0.0, high=1.0)

    def pack(self, keys: Tensor, values: Tensor, saliency: Tensor) -> tuple[Packed, Packed]:
        """Keys by two kinds of channels, values by trits."""
        wide = select_highest(keys.amax(0) - keys.amin(0), self.share)
        trits = pack_transposed(pack_with_coder(Ternary(group=0), values.T.contiguous()))
        if not wide.any():
            return _pack_fourier(keys), trits
        if wide.all():
            return pack_by_columns(keys, 2), trits
        both = split_rows(wide, pack_transposed(_pack_fourier(keys[:, ~wide])), pack_by_rows(keys[:, wide].T, 2))
        return pack_transposed(both), trits

    @property
    def nominal_bits(self) -> float:
        """Half for keys, half for values."""
        return (self.share * 2 + (1 - self.share) + math.log2(3)) / 2


def _pack_fourier(x: Tensor) -> Packed:
    """One bit for each coefficient of the transform across the channels of `x [tokens, channels]`, with a mean and size each."""
    rows, cols = x.shape
    return Packed("fourier", rows, cols, children=(pack_by_columns(fourier(x), 1),))
