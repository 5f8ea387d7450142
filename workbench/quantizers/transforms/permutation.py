"""Transform `permutation`: columns sorted by the variance of their input, largest first."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.kernels.formats.codebook import compute_index_width
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.quantizers.contract import State, Transform
from workbench.registry import register


@dataclass(frozen=True)
class Order(State):
    """`order [cols]`: the original number of each new column, int64."""

    order: Tensor


@register("transform", "permutation")
@dataclass(frozen=True)
class Permutation(Transform[Order]):
    """Columns by descending diagonal of the second moment, so that groups hold columns of like importance.

    With column feedback this is GPTQ's act-order with groups formed in the new order; the order itself is stored.
    """

    @property
    def needs_moment(self) -> bool:
        """The order comes from the second moment."""
        return True

    def fit(self, w: Tensor, moment: Tensor | None, seed: int) -> Order:
        """From the diagonal of the second moment."""
        assert moment is not None
        return Order(torch.argsort(moment.diagonal(), descending=True, stable=True))

    def read_state(self, tensors: Mapping[str, Tensor]) -> Order:
        """The state that has these tensors."""
        return Order(**tensors)

    def forward(self, w: Tensor, state: Order) -> Tensor:
        """W[:, order]."""
        return w[:, state.order]

    def moment(self, moment: Tensor, state: Order) -> Tensor:
        """H[order, order]."""
        return moment[state.order][:, state.order]

    def pack(self, inner: Packed, state: Order) -> Packed:
        """Format `permuted`."""
        order = bitpack.pack(state.order, compute_index_width(inner.cols))
        return Packed("permuted", inner.rows, inner.cols, {"order": order}, children=(inner,))
