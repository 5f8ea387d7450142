"""Coder `sign`: one or two planes of signs with scales, from plain signs to alternating refined binarization (ARB)."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.part_settings import SCALES, make_group_setting
from workbench.quantizers.coders.fitting import plane_starts, sign_planes
from workbench.quantizers.coders.fitting.column_groups import compute_group_span
from workbench.quantizers.coders.fitting.sign_planes import PlaneScales
from workbench.quantizers.contract import Fit, UnsharedCoder
from workbench.recipe import setting
from workbench.registry import register

SCALES_PER_GROUP, SCALES_PER_COLUMN = (
    ("group", "group-column"),
    ("row-column", "group-column"),
)  # those with a scale a group, or a column


@register("coder", "sign")
@dataclass(frozen=True)
class Sign(UnsharedCoder[PlaneScales]):
    """Signs times scales; sign(0) is +1.

    `sweeps` = 0 is closed-form binarization (XNOR-Net, arXiv 1603.05279; the second plane codes the residual), more sweeps
    are ARB-LLM (arXiv 2410.03129): one plane first order, two planes second order, `scales` "row-column" or "group-column" its
    RC variant (without a mean there), `scaling` "moment" its X variant, which solves scales under the group's own moment.
    `rescale` solves the scales once more for the final signs, under the second moment where there is one.
    """

    planes: int = setting(1, "sign planes, one bit per weight each", low=1, high=2)
    scales: str = setting("row", "granularity of the scales", choices=SCALES)
    group: int = make_group_setting(128)
    mean: bool = setting(True, "also store a mean with each scale")
    sweeps: int = setting(15, "alternating sweeps over scales and signs; 0 is the closed form", low=0, high=100)
    rescale: bool = setting(True, "refit the scales to the final signs")
    scaling: str = setting(
        "plain",
        "objective of a group's scales before its columns are coded: weight error, or output error",
        choices=("plain", "moment"),
    )
    average: str = setting(
        "kept",
        "weights that closed-form scales average over: the coder's own, or the whole span as in PB-LLM's released code",
        choices=("kept", "span"),
    )

    @property
    def needs_moment(self) -> bool:
        """Only scales that minimise the output's error do."""
        return self.scaling == "moment"

    @property
    def nominal_bits(self) -> float:
        """One bit a plane."""
        return float(self.planes)

    def span(self, cols: int) -> int:
        """One group, or the row."""
        return compute_group_span(self.group if self.scales in SCALES_PER_GROUP else 0, cols)

    def fit(self, w: Tensor, mask: Tensor, shared: None, moment: Tensor | None) -> Fit[PlaneScales]:
        """Scales, and as set means and scales of columns: in closed form, then by sweeps over scales and signs."""
        over = mask if self.average == "kept" else torch.ones_like(mask)
        start = sign_planes.fit_greedy_planes(w, mask, self.planes, self.mean, self.scales in SCALES_PER_COLUMN, over)
        if self.planes > 1 and self.sweeps and self.scales not in SCALES_PER_COLUMN:
            start = plane_starts.choose_best_start(
                w, mask, [start, *plane_starts.list_sign_starts(w, mask, self.mean)], sign_planes.choose_nearest_signs
            )
        fit = sign_planes.alternate(w, mask, start, self.sweeps, sign_planes.choose_nearest_signs)
        if self.scaling == "moment" and moment is not None:
            signs = sign_planes.choose_nearest_signs(w, fit.params)
            (params,) = sign_planes.refit(w * mask, signs, [fit.params], w.shape[1], mask, moment)
            fit = replace(fit, params=params)
        return fit

    def encode(self, w: Tensor, params: PlaneScales, columns: slice) -> Tensor:
        """The nearest sum of signs."""
        return sign_planes.choose_nearest_codes(w, params, columns)

    def decode(self, codes: Tensor, params: PlaneScales, columns: slice) -> Tensor:
        """Σ_p scale · column_scale · sign + mean."""
        return sign_planes.sum_planes(sign_planes.decode_signs(codes, self.planes), params, columns)

    def refit(
        self, target: Tensor, codes: Tensor, params: list[PlaneScales], mask: Tensor, moment: Tensor | None
    ) -> list[PlaneScales]:
        """Scales and means by least squares, unless `rescale` is off."""
        if not self.rescale:
            return params
        return sign_planes.refit(
            target, sign_planes.decode_signs(codes, self.planes), params, self.span(mask.shape[1]), mask, moment
        )

    def pack(self, codes: Tensor, params: list[PlaneScales], mask: Tensor | None, shape: tuple[int, int]) -> Packed:
        """Format `planes`."""
        bits = torch.stack([codes >> p & 1 for p in range(self.planes)])
        stored = bits if mask is None else bits[:, mask]
        tensors = {"signs": bitpack.pack(stored, 1), **sign_planes.pack_scale_tensors(params)}
        return Packed("planes", *shape, tensors, {"planes": self.planes, "span": self.span(shape[1])})
