"""Coder `ternary`: one to three planes of trits (−1, 0, +1) with scales."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.kernels.formats.ternary import choose_nearest_trits
from workbench.kernels.packing import tritpack
from workbench.kernels.packing.packed import Packed
from workbench.part_settings import TRIT_SCALE_RULES, make_group_setting
from workbench.quantizers.coders.fitting import plane_starts, sign_planes
from workbench.quantizers.coders.fitting.column_groups import compute_group_span
from workbench.quantizers.coders.fitting.sign_planes import PlaneScales
from workbench.quantizers.contract import Fit, UnsharedCoder
from workbench.quantizers.storage_rounding import round_to_fp16
from workbench.recipe import setting
from workbench.registry import register

FIRST_PLANE_SIZE = (
    1.3  # of several planes the first is so much larger than one alone, each next one half of it: sweeps end lower from there
)


@register("coder", "ternary")
@dataclass(frozen=True)
class Ternary(UnsharedCoder[PlaneScales]):
    """value = Σ_p scale_p · trit_p; a code is Σ_p 3^p (trit_p + 1).

    Rule "least-squares" is the scale that loses least: the mean of the largest k weights for the best k, which TWN (arXiv
    1605.04711) approximates by a threshold; "absmean" is the mean size, as in BitNet b1.58 (arXiv 2402.17764). Then scales and
    trits are refined in turn. Two planes are the form of PTQTP (arXiv 2509.16989), which starts from equal planes and needs a
    ridge. `rescale` solves the scales once more for the final trits.
    """

    planes: int = setting(1, "planes of trits, 1.6 bits per weight each", low=1, high=3)
    group: int = make_group_setting(128)
    rule: str = setting("least-squares", "initial scales: least squared error, or mean magnitude", choices=TRIT_SCALE_RULES)
    sweeps: int = setting(15, "alternating sweeps over scales and trits; 0 keeps the initial scales", low=0, high=100)
    rescale: bool = setting(True, "refit the scales to the final trits")

    @property
    def nominal_bits(self) -> float:
        """log₂ 3 a plane."""
        return self.planes * math.log2(3)

    def span(self, cols: int) -> int:
        """One group, or the row."""
        return compute_group_span(self.group, cols)

    def fit(self, w: Tensor, mask: Tensor, shared: None, moment: Tensor | None) -> Fit[PlaneScales]:
        """Scales alone, by sweeps over scales and trits."""
        size = compute_best_size(w * mask) if self.rule == "least-squares" else _compute_mean_size(w * mask, mask)
        if self.planes == 1:
            return sign_planes.alternate(w, mask, PlaneScales(round_to_fp16(size[None])), self.sweeps, _choose_trits)
        halved = PlaneScales(round_to_fp16(size * FIRST_PLANE_SIZE * 0.5 ** torch.arange(self.planes)[:, None]))
        start = plane_starts.choose_best_start(
            w, mask, [halved, *plane_starts.list_trit_starts(w * mask, self.planes)], _choose_trits
        )
        return sign_planes.alternate(w, mask, start, self.sweeps, _choose_trits)

    def encode(self, w: Tensor, params: PlaneScales, columns: slice) -> Tensor:
        """The nearest sum of trits."""
        digits = 3 ** torch.arange(self.planes)[:, None, None]
        return ((choose_nearest_trits(w, params.scale[..., None]) + 1) * digits).sum(0).to(torch.uint8)

    def decode(self, codes: Tensor, params: PlaneScales, columns: slice) -> Tensor:
        """Σ_p scale_p · trit_p."""
        return sign_planes.sum_planes(self.trits(codes).float(), params, columns)

    def refit(
        self, target: Tensor, codes: Tensor, params: list[PlaneScales], mask: Tensor, moment: Tensor | None
    ) -> list[PlaneScales]:
        """Scales by least squares, unless `rescale` is off."""
        if not self.rescale:
            return params
        return sign_planes.refit(target, self.trits(codes).float(), params, self.span(mask.shape[1]), mask, moment)

    def pack(self, codes: Tensor, params: list[PlaneScales], mask: Tensor | None, shape: tuple[int, int]) -> Packed:
        """Format `ternary`."""
        trits = self.trits(codes)
        stored = trits if mask is None else trits[:, mask]
        tensors = {"trits": tritpack.pack(stored), **sign_planes.pack_scale_tensors(params)}
        return Packed("ternary", *shape, tensors, {"planes": self.planes, "span": self.span(shape[1])})

    def trits(self, codes: Tensor) -> Tensor:
        """The trits of codes, int8 `[planes, rows, k]`."""
        return torch.stack([codes // 3**p % 3 for p in range(self.planes)]).to(torch.int8) - 1


def _choose_trits(w: Tensor, params: PlaneScales) -> Tensor:
    """The nearest trits for a whole span."""
    return choose_nearest_trits(w, params.scale[..., None]).float()


def compute_best_size(w: Tensor) -> Tensor:
    """The scale of each row `[rows]` that loses least: the mean of its k largest weights, for the k with the largest (Σ)²/k."""
    total = w.abs().sort(1, descending=True).values.double().cumsum(1)
    count = torch.arange(1, w.shape[1] + 1)
    best = (total.square() / count).argmax(1, keepdim=True)
    return (total.gather(1, best) / (best + 1))[:, 0].to(w.dtype)


def _compute_mean_size(w: Tensor, mask: Tensor) -> Tensor:
    """mean |w| over the mask, `[rows]`."""
    return w.abs().sum(1) / mask.sum(1).clamp(min=1)
