"""Coder `parity-signs`: below one bit per weight without a codebook, by signs that satisfy parity checks."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.errors import RecipeError
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.kernels.packing.parity_code import ParityCode
from workbench.kernels.search import parity_search
from workbench.part_settings import SCALES, make_group_setting
from workbench.quantizers.coders.fitting import sign_planes
from workbench.quantizers.coders.fitting.column_groups import compute_group_span
from workbench.quantizers.coders.fitting.sign_planes import PlaneScales
from workbench.quantizers.coders.sign import SCALES_PER_COLUMN, SCALES_PER_GROUP
from workbench.quantizers.contract import Fit, UnsharedCoder
from workbench.recipe import setting
from workbench.registry import register

SETTLE = 5  # sweeps of scales and signs in turn


@register("coder", "parity-signs")
@dataclass(frozen=True)
class ParitySigns(UnsharedCoder[PlaneScales]):
    """Signs of which `checks` in every `length` of a column follow from the others and are not stored, times row scales.

    This project's: what the binary codebook of BTC-LLM (arXiv 2506.12040) buys with a list of patterns, a linear code
    gives away. Its codewords lie evenly and may be as long as a column, so that the nearest one is nearer (Gaussian rows at 0.8
    bits: relative error 0.396, against 0.44 for a codebook of 256 patterns of 10 signs and 0.54 by Hamming distance), none of
    them is stored, and as they run down a column, errors move on after every column. `rescale` solves the scales again for the
    final signs, under the second moment where there is one.
    """

    full_mask_only: ClassVar[bool] = True
    length: int = setting(5, "block length: signs of a column that share parity checks", low=2, high=1000)
    checks: int = setting(1, "parity checks per block, i.e. signs that are not stored", low=1, high=500)
    scales: str = setting("row", "granularity of the scales", choices=SCALES)
    group: int = make_group_setting(128)
    mean: bool = setting(False, "also store a mean with each scale")
    sweeps: int = setting(15, "alternating sweeps over scales and signs without parity", low=0, high=100)
    rescale: bool = setting(True, "refit the scales to the final signs")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checks * 2 > self.length:
            most = self.length // 2
            raise RecipeError(
                f"coder 'parity-signs': {self.checks} checks on {self.length} signs; use at most {most}, half of the signs."
            )

    @property
    def parity(self) -> ParityCode:
        """The parity checks."""
        return ParityCode(self.length, self.checks)

    @property
    def nominal_bits(self) -> float:
        """Stored signs over signs."""
        return 1 - self.checks / self.length

    def span(self, cols: int) -> int:
        """One group, or the row."""
        return compute_group_span(self.group if self.scales in SCALES_PER_GROUP else 0, cols)

    def fit(self, w: Tensor, mask: Tensor, shared: None, moment: Tensor | None) -> Fit[PlaneScales]:
        """Scales, and as set means and scales of columns: those of plain signs, settled on signs that obey the checks."""
        every = torch.ones_like(w, dtype=torch.bool)
        start = sign_planes.fit_greedy_planes(w, every, 1, self.mean, self.scales in SCALES_PER_COLUMN, every)
        plain = sign_planes.alternate(w, every, start, self.sweeps, sign_planes.choose_nearest_signs).params

        def choose(w: Tensor, params: PlaneScales) -> Tensor:
            return decode_signs(self.encode(w, params, slice(0, w.shape[1])))

        return sign_planes.alternate(w, mask, plain, SETTLE, choose)

    def encode(self, w: Tensor, params: PlaneScales, columns: slice) -> Tensor:
        """Which signs are −1, bool `[rows, k]`."""
        y = sign_planes.compute_magnitudes(params, columns)[0] * sign_planes.subtract_mean(w, params)
        return parity_search.find_nearest_signs(y / y.abs().amax().clamp(min=torch.finfo(torch.float32).tiny), self.parity)

    def decode(self, codes: Tensor, params: PlaneScales, columns: slice) -> Tensor:
        """scale · column_scale · sign + mean."""
        return sign_planes.sum_planes(decode_signs(codes), params, columns)

    def refit(
        self, target: Tensor, codes: Tensor, params: list[PlaneScales], mask: Tensor, moment: Tensor | None
    ) -> list[PlaneScales]:
        """Scales and means by least squares, unless `rescale` is off."""
        return (
            sign_planes.refit(target, decode_signs(codes), params, self.span(mask.shape[1]), mask, moment)
            if self.rescale
            else params
        )

    def pack(self, codes: Tensor, params: list[PlaneScales], mask: Tensor | None, shape: tuple[int, int]) -> Packed:
        """Format `parity-signs`: the signs that no check determines, scales and means."""
        scales = sign_planes.pack_scale_tensors(params)
        tensors = {
            "signs": bitpack.pack(codes[self.parity.stored(shape[0])], 1),
            **{name: tensor if name == "mean" else tensor[0] for name, tensor in scales.items()},
        }
        return Packed(
            "parity-signs", *shape, tensors, {"length": self.length, "checks": self.checks, "span": self.span(shape[1])}
        )


def decode_signs(codes: Tensor) -> Tensor:
    """±1 `[1, rows, cols]`."""
    return torch.where(codes, -1.0, 1.0)[None]
