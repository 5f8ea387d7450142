"""Transform `permutation`: columns sorted by the variance of their input, largest first."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.kernels.formats.codebook import compute_index_width
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.quantizers.contract import Params, Transform
from workbench.registry import register


@register("transform", "permutation")
@dataclass(frozen=True)
class Permutation(Transform):
    """Columns by descending diagonal of the second moment, so that groups hold columns of like importance.

    With column feedback this is GPTQ's act-order with groups formed in the new order; the order itself is stored.
    """

    @property
    def needs_moment(self) -> bool:
        """The order comes from the second moment."""
        return True

    def fit(self, w: Tensor, moment: Tensor | None, seed: int) -> Params:
        """`order`: the original number of each new column, int64 `[cols]`."""
        assert moment is not None
        return {"order": torch.argsort(moment.diagonal(), descending=True, stable=True)}

    def forward(self, w: Tensor, state: Params) -> Tensor:
        """W[:, order]."""
        return w[:, state["order"]]

    def moment(self, moment: Tensor, state: Params) -> Tensor:
        """H[order, order]."""
        return moment[state["order"]][:, state["order"]]

    def pack(self, inner: Packed, state: Params) -> Packed:
        """Format `permuted`."""
        order = bitpack.pack(state["order"], compute_index_width(inner.cols))
        return Packed("permuted", inner.rows, inner.cols, {"order": order}, children=(inner,))
