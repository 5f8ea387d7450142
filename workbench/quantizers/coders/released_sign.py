"""Coder `released-sign`: sign planes as in the released codes of BiLLM, STBLLM and ARB-LLM."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.part_settings import make_group_setting
from workbench.quantizers.coders.fitting import released_planes, sign_planes
from workbench.quantizers.coders.fitting.column_groups import compute_group_span
from workbench.quantizers.coders.fitting.sign_planes import PlaneScales
from workbench.quantizers.contract import Fit, UnsharedCoder
from workbench.quantizers.storage_rounding import round_to_fp16
from workbench.recipe import setting
from workbench.registry import register

RESIDUAL_RULES = ("residual", "row-column", "moment")


@dataclass(frozen=True, kw_only=True)
class ReleasedScales(PlaneScales):
    """Scales of one span as they are stored; `choice` has those by which signs are chosen, float64, and is not stored.

    Rule "residual" chooses each plane's sign after taking its `shift [planes, rows]`, float64 and not stored either.
    """

    choice: PlaneScales
    shift: Tensor | None = None


@register("coder", "released-sign")
@dataclass(frozen=True)
class ReleasedSign(UnsharedCoder[ReleasedScales]):
    """One or two planes with a scale a group: the rules of `sign` as they were released, for comparison.

    "residual" is BiLLM and STBLLM: each plane centres and codes what the one before left, so signs are not the nearest.
    "row-column" is ARB-RC without early stop. "moment" is ARB-X: signs first, then scales that suit the outputs, signs held.
    """

    planes: int = setting(1, "sign planes, one bit per weight each", low=1, high=2)
    group: int = make_group_setting(128)
    rule: str = setting("residual", "method that fits signs and scales", choices=RESIDUAL_RULES)
    sweeps: int = setting(15, "alternating sweeps of the two update rules", low=0, high=100)

    @property
    def needs_moment(self) -> bool:
        """Only scales that suit the outputs do."""
        return self.rule == "moment"

    @property
    def nominal_bits(self) -> float:
        """One bit a plane."""
        return float(self.planes)

    def span(self, cols: int) -> int:
        """One group."""
        return compute_group_span(self.group, cols)

    def fit(self, w: Tensor, mask: Tensor, shared: None, moment: Tensor | None) -> Fit[ReleasedScales]:
        """A mean, or scales of columns for rule "row-column", beside a scale for each plane and row."""
        used_columns = mask.any(0)
        x, mask = w[:, used_columns].double(), mask[:, used_columns]
        mean = column_scale = shift = None
        if self.rule == "residual":
            fitted, shifts = released_planes.fit_residual_planes(x, mask, self.planes)
            mean, shift, choice = fitted.mean[:, 0], shifts[..., 0], PlaneScales(fitted.size[..., 0])
        elif self.rule == "row-column":
            fitted = released_planes.alternate_columns(x, mask, self.planes, self.sweeps)
            column_scale = torch.zeros(self.planes, w.shape[1], dtype=torch.float64)
            column_scale[:, used_columns] = fitted.column[:, 0]
            choice = PlaneScales(fitted.size[..., 0], column_scale=column_scale)
        else:
            start = released_planes.alternate(x, mask, self.planes, self.sweeps)
            own_moment = torch.eye(len(x[0]), dtype=x.dtype) if moment is None else moment[used_columns][:, used_columns].double()
            fitted = released_planes.fit_outputs(x, mask, start, own_moment, self.sweeps)
            mean, choice = fitted.mean[:, 0], PlaneScales(start.size[..., 0], start.mean[:, 0])
        if self.rule != "residual" and self.planes == 1:  # the sign alone, whatever its scale
            choice = PlaneScales(torch.ones_like(choice.scale), choice.mean)
        scale, mean, column_scale = round_to_fp16(fitted.size[..., 0].float()), _round_used(mean), _round_used(column_scale)
        return Fit(ReleasedScales(scale, mean, column_scale, choice=choice, shift=shift))

    def encode(self, w: Tensor, params: ReleasedScales, columns: slice) -> Tensor:
        """Signs by the scales that were there when signs were last chosen."""
        if params.shift is None:
            return sign_planes.choose_nearest_codes(w.double(), params.choice, columns)
        rest, codes = w.double(), torch.zeros_like(w, dtype=torch.uint8)
        for p, (size, shift) in enumerate(zip(params.choice.scale, params.shift, strict=True)):
            rest = rest - shift[:, None]
            codes |= (rest >= 0).to(torch.uint8) << p
            rest = rest - torch.where(rest >= 0, size[:, None], -size[:, None])
        return codes

    def decode(self, codes: Tensor, params: ReleasedScales, columns: slice) -> Tensor:
        """Σ_p scale · column_scale · sign + mean."""
        return sign_planes.sum_planes(sign_planes.decode_signs(codes, self.planes), params, columns)

    def pack(self, codes: Tensor, params: list[ReleasedScales], mask: Tensor | None, shape: tuple[int, int]) -> Packed:
        """Format `planes`."""
        bits = torch.stack([codes >> p & 1 for p in range(self.planes)])
        stored = bits if mask is None else bits[:, mask]
        tensors = {"signs": bitpack.pack(stored, 1), **sign_planes.pack_scale_tensors(params)}
        return Packed("planes", *shape, tensors, {"planes": self.planes, "span": self.span(shape[1])})


def _round_used(values: Tensor | None) -> Tensor | None:
    """As stored, where the rule has such a parameter."""
    return None if values is None else round_to_fp16(values.float())
