"""Format `planes`: a sum of sign matrices, each with its own scales (binary, residual binary, binary coding)."""

from typing import ClassVar

import torch
from torch import Tensor

from workbench.kernels.packed import Packed
from workbench.kernels.reference.format import Format, codes, only, over_columns
from workbench.registry import register


@register("format", "planes")
class Planes(Format):
    """value = Σ_p scale_p · column_scale_p · sign_p + mean, planes added in order, the mean last.

    Facts: `planes`, `span` columns a group. Tensors: `signs` (stream of 1 bit, `[planes, rows, cols]`, 1 is +1 and 0 is −1),
    `scale` fp16 `[planes, rows, groups]`, optional `column_scale` fp16 `[planes, cols]`, optional `mean` fp16 `[rows, groups]`.
    """

    items: ClassVar = {
        "signs": "one bit a weight and plane",
        "scale": "magnitude, one a row, group and plane",
        "column_scale": "magnitude, one a column and plane",
        "mean": "offset, one a row and group",
    }

    @classmethod
    def decode(cls, packed: Packed, mask: Tensor | None = None) -> Tensor:
        """Σ_p scale_p · column_scale_p · sign_p + mean."""
        planes, span = packed.facts["planes"], packed.facts["span"]
        positive = codes(packed, "signs", 1, mask, planes)
        scale = over_columns(packed.tensors["scale"], span, packed.cols)
        value = torch.zeros(packed.rows, packed.cols, device=scale.device)
        for plane in range(planes):
            size = scale[plane]
            if "column_scale" in packed.tensors:
                size = size * packed.tensors["column_scale"][plane].to(torch.float32)
            value += torch.where(positive[plane] == 1, size, -size)
        if "mean" in packed.tensors:
            value += over_columns(packed.tensors["mean"], span, packed.cols)
        return only(mask, value)
