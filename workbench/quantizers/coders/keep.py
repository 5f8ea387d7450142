"""Coder `keep`: weights unquantized, or in half the bytes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.kernels.packing.packed import Packed
from workbench.quantizers.contract import Fit, UnsharedCoder
from workbench.quantizers.storage_rounding import round_to_fp16
from workbench.recipe import setting
from workbench.registry import register

BITS_OF_DTYPE = {"fp16": 16.0, "fp32": 32.0, "exact": None}


@register("coder", "keep")
@dataclass(frozen=True)
class Keep(UnsharedCoder[None]):
    """No quantization. "exact" stores the narrowest of fp16, bf16 and fp32 that holds every weight without change."""

    dtype: str = setting("exact", "how each weight is stored", choices=tuple(BITS_OF_DTYPE))

    @property
    def nominal_bits(self) -> float | None:
        """16 or 32, or what is stored."""
        return BITS_OF_DTYPE[self.dtype]

    def span(self, cols: int) -> int:
        """The whole row."""
        return cols

    def fit(self, w: Tensor, mask: Tensor, shared: None, moment: Tensor | None) -> Fit[None]:
        """Nothing to find out."""
        return Fit(None)

    def encode(self, w: Tensor, params: None, columns: slice) -> Tensor:
        """The weights are their own codes."""
        return round_to_fp16(w) if self.dtype == "fp16" else w.clone()

    def decode(self, codes: Tensor, params: None, columns: slice) -> Tensor:
        """The codes."""
        return codes

    def pack(self, codes: Tensor, params: list[None], mask: Tensor | None, shape: tuple[int, int]) -> Packed:
        """Format `dense`."""
        kept_codes = codes if mask is None else codes[mask]
        dtype = {"fp16": torch.float16, "fp32": torch.float32}.get(self.dtype) or _choose_narrowest_dtype(kept_codes)
        return Packed("dense", *shape, {"weight": kept_codes.to(dtype)})


def _choose_narrowest_dtype(values: Tensor) -> torch.dtype:
    """The first of fp16, bf16 and fp32 in which every value stays what it is."""
    return next((d for d in (torch.float16, torch.bfloat16) if torch.equal(values.to(d).to(values.dtype), values)), torch.float32)
