"""Transform `column-scale`: columns with large inputs are scaled up before rounding, to lower their error."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from workbench.kernels.packing.packed import Packed
from workbench.quantizers.contract import State, Transform
from workbench.recipe import setting
from workbench.registry import register


@dataclass(frozen=True)
class Scales(State):
    """`scale [cols]`: s in fp16, between 1/1024 and 1024."""

    scale: Tensor


@register("transform", "column-scale")
@dataclass(frozen=True)
class ColumnScale(Transform[Scales]):
    """W diag(s) with s_j = (E x_j²)^(alpha/2), normalised so that s runs evenly around 1.

    After AWQ (arXiv 2306.00978), which uses E|x_j|, searches alpha and folds 1/s into the layer before; here alpha is a
    setting and s is stored and applied to the input.
    """

    alpha: float = setting(0.5, "exponent of the input size: 0 changes nothing, 1 is full scaling", low=0.0, high=1.0)

    @property
    def needs_moment(self) -> bool:
        """The scales come from the second moment."""
        return True

    def fit(self, w: Tensor, moment: Tensor | None, seed: int) -> Scales:
        """From the diagonal of the second moment."""
        assert moment is not None
        level = moment.diagonal().clamp(min=0)
        scale = (level / level.mean().clamp(min=1e-30)).clamp(min=1e-8) ** (self.alpha / 2)
        scale = scale / (scale.max() * scale.min()).sqrt()
        return Scales(scale.clamp(1 / 1024, 1024).half())

    def read_state(self, tensors: Mapping[str, Tensor]) -> Scales:
        """The state that has these tensors."""
        return Scales(**tensors)

    def forward(self, w: Tensor, state: Scales) -> Tensor:
        """W diag(s)."""
        return w * state.scale.to(w.dtype)

    def moment(self, moment: Tensor, state: Scales) -> Tensor:
        """diag(s)⁻¹ H diag(s)⁻¹."""
        scale = state.scale.to(moment.dtype)
        return moment / scale / scale[:, None]

    def pack(self, inner: Packed, state: Scales) -> Packed:
        """Format `scaled`."""
        return Packed("scaled", inner.rows, inner.cols, {"scale": state.scale}, children=(inner,))
