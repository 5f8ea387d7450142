"""Coder `released-sign`: sign planes as in the released codes of BiLLM, STBLLM and ARB-LLM."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.quantizers.coders.fitting import released_planes, sign_planes
from workbench.quantizers.coders.fitting.column_groups import compute_group_span, make_group_setting
from workbench.quantizers.contract import Coder, Fit, Params
from workbench.quantizers.storage_rounding import round_to_fp16
from workbench.recipe import setting
from workbench.registry import register

RESIDUAL_RULES = ("residual", "row-column", "moment")
CHOICE = "choice_"  # parameters by which codes are chosen; they are not stored


@register("coder", "released-sign")
@dataclass(frozen=True)
class ReleasedSign(Coder):
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

    def fit(self, w: Tensor, mask: Tensor, shared: Params, moment: Tensor | None) -> Fit:
        """`scale [planes, rows]`, `mean [rows]` or `column_scale [planes, span]`, and what codes are chosen by, float64."""
        used_columns = mask.any(0)
        x, mask = w[:, used_columns].double(), mask[:, used_columns]
        if self.rule == "residual":
            fitted, shift = released_planes.fit_residual_planes(x, mask, self.planes)
            stored, chosen = {"mean": fitted.mean[:, 0]}, {"scale": fitted.size[..., 0], "shift": shift[..., 0]}
        elif self.rule == "row-column":
            fitted = released_planes.alternate_columns(x, mask, self.planes, self.sweeps)
            columns = torch.zeros(self.planes, w.shape[1], dtype=torch.float64)
            columns[:, used_columns] = fitted.column[:, 0]
            stored, chosen = {"column_scale": columns}, {"scale": fitted.size[..., 0], "column_scale": columns}
        else:
            start = released_planes.alternate(x, mask, self.planes, self.sweeps)
            own_moment = torch.eye(len(x[0]), dtype=x.dtype) if moment is None else moment[used_columns][:, used_columns].double()
            fitted = released_planes.fit_outputs(x, mask, start, own_moment, self.sweeps)
            stored, chosen = {"mean": fitted.mean[:, 0]}, {"scale": start.size[..., 0], "mean": start.mean[:, 0]}
        if self.rule != "residual" and self.planes == 1:  # the sign alone, whatever its scale
            chosen = {**chosen, "scale": torch.ones_like(chosen["scale"])}
            chosen.pop("column_scale", None)
        stored = {name: round_to_fp16(value.float()) for name, value in {"scale": fitted.size[..., 0], **stored}.items()}
        return Fit({**stored, **{CHOICE + name: value for name, value in chosen.items()}})

    def encode(self, w: Tensor, params: Params, columns: slice) -> Tensor:
        """Signs by the scales that were there when signs were last chosen."""
        chosen = {name.removeprefix(CHOICE): value for name, value in params.items() if name.startswith(CHOICE)}
        if self.rule != "residual":
            return sign_planes.choose_nearest_codes(w.double(), chosen, columns)
        rest, codes = w.double(), torch.zeros_like(w, dtype=torch.uint8)
        for p, (size, shift) in enumerate(zip(chosen["scale"], chosen["shift"], strict=True)):
            rest = rest - shift[:, None]
            codes |= (rest >= 0).to(torch.uint8) << p
            rest = rest - torch.where(rest >= 0, size[:, None], -size[:, None])
        return codes

    def decode(self, codes: Tensor, params: Params, columns: slice) -> Tensor:
        """Σ_p scale · column_scale · sign + mean."""
        return sign_planes.sum_planes(sign_planes.decode_signs(codes, self.planes), params, columns)

    def pack(self, codes: Tensor, params: list[Params], mask: Tensor | None, shape: tuple[int, int]) -> Packed:
        """Format `planes`."""
        bits = torch.stack([codes >> p & 1 for p in range(self.planes)])
        stored = bits if mask is None else bits[:, mask]
        tensors = {"signs": bitpack.pack(stored, 1), **sign_planes.pack_scale_tensors(params)}
        return Packed("planes", *shape, tensors, {"planes": self.planes, "span": self.span(shape[1])})
