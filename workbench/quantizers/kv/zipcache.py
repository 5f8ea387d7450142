"""Scheme `zipcache`: channels are normalized before tokens get their grids, and salient tokens get more bits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from workbench.kernels.packing.packed import Packed
from workbench.quantizers.kv.grids import pack_by_columns, pack_by_rows, select_highest, split_rows
from workbench.quantizers.kv.plain import ALLOWED_BITS
from workbench.quantizers.kv.scheme import Scheme
from workbench.recipe import setting
from workbench.registry import register


@register("kv", "zipcache")
@dataclass(frozen=True)
class ZipCache(Scheme):
    """Keys channel by channel, values token by token after channel c is divided by √max|x_c|; `share` of the tokens in more bits.

    A token is salient by the attention that it got over the number of queries that could see it.
    """

    source: ClassVar[str] = "ZipCache, arXiv 2405.14256"
    note: ClassVar[str] = (
        "Attention is computed for every query of the block, not estimated from a tenth of them; a block is stored once and not "
        "stored again every 100 steps."
    )
    watches: ClassVar[bool] = True
    bits: int = setting(2, "bits per code", choices=ALLOWED_BITS)
    salient: int = setting(4, "bits per code for salient tokens", choices=ALLOWED_BITS)
    share: float = setting(0.6, "share of salient tokens", low=0.0, high=1.0)

    def pack(self, keys: Tensor, values: Tensor, saliency: Tensor) -> tuple[Packed, Packed]:
        """Each token's keys and values at its own bits, under one map for both, stored with either."""
        rows, cols = values.shape
        salient = select_highest(saliency, self.share)
        scale = (1 / values.abs().amax(0).clamp(min=1e-8).sqrt()).half()
        value = self.mixed(salient, values * scale.float(), pack_by_rows)
        return self.mixed(salient, keys, pack_by_columns), Packed("scaled", rows, cols, {"scale": scale}, children=(value,))

    def mixed(self, salient: Tensor, x: Tensor, store: Callable[[Tensor, int], Packed]) -> Packed:
        """Salient rows of `x` at more bits than the others; no map where all are alike."""
        if salient.all() or not salient.any():
            return store(x, self.salient if salient.all() else self.bits)
        return split_rows(salient, store(x[~salient], self.bits), store(x[salient], self.salient))

    @property
    def nominal_bits(self) -> float:
        """Codes of both kinds of tokens."""
        return self.share * self.salient + (1 - self.share) * self.bits
