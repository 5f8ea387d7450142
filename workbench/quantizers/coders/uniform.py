"""Coder `uniform`: integers on a regular grid, as in round-to-nearest and GPTQ."""

from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.errors import RecipeError
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.part_settings import make_group_setting, make_zero_setting
from workbench.quantizers.coders.fitting.column_groups import compute_group_span, stack_groups
from workbench.quantizers.coders.fitting.grid_search import GridSearch, RealGridSearch
from workbench.quantizers.contract import Fit, UnsharedCoder
from workbench.quantizers.storage_rounding import round_to_fp16
from workbench.recipe import setting
from workbench.registry import register


@dataclass(frozen=True)
class Grid:
    """The grid of each row of a span: `scale [rows]` and `zero [rows]`, the code that stands for 0."""

    scale: Tensor
    zero: Tensor


@register("coder", "uniform")
@dataclass(frozen=True)
class Uniform(UnsharedCoder[Grid]):
    """value = scale · (code − zero): fp16 scale and `bits`-bit zero for each row and group.

    Asymmetric: scale = (max − min)/(2^b − 1), with 0 always inside the range. Symmetric: scale = max|w|/(2^(b−1) − 1), codes
    −2^(b−1) … 2^(b−1) − 1. The search (`clip`) keeps, row by row, the scale and zero with the least squared error, see
    `grid_search` (GPTQ's released one makes the range smaller only, and uses |e|^2.4); "moment" weighs columns by their second
    moment. A real `zero` takes 16 bits instead of `bits`.
    """

    bits: int = setting(4, "bits per code", low=1, high=8)
    group: int = make_group_setting(128)
    symmetric: bool = setting(False, "symmetric grid around zero, without a stored zero point")
    clip: str = setting("none", "search for the grid with the lowest error", choices=("none", "mse", "moment"))
    zero: str = make_zero_setting()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.symmetric and self.bits == 1:
            raise RecipeError("coder 'uniform': a symmetric grid of 1 bit has no step; use symmetric=False or coder 'sign'.")
        if self.symmetric and self.zero == "real":
            raise RecipeError("coder 'uniform': a symmetric grid stores no zero; use symmetric=False or zero='integer'.")

    @property
    def needs_moment(self) -> bool:
        """Only a clip search weighted by the moment does."""
        return self.clip == "moment"

    @property
    def nominal_bits(self) -> float:
        """Bits of a code."""
        return float(self.bits)

    def span(self, cols: int) -> int:
        """One group."""
        return compute_group_span(self.group, cols)

    def fit(self, w: Tensor, mask: Tensor, shared: None, moment: Tensor | None) -> Fit[Grid]:
        """The grid that covers the weights, or the one that the search finds."""
        masked = w * mask
        if self.clip == "none":
            return Fit(self.grid(masked.amin(1).clamp(max=0), masked.amax(1).clamp(min=0)))
        weight = None if bool(mask.all()) else mask.to(w.dtype)
        if self.clip == "moment" and moment is not None:
            weight = mask * moment.diagonal()
        steps = (1 << self.bits) - 1
        if self.zero == "real":
            return Fit(Grid(*RealGridSearch(masked, weight, steps).run()))
        middle = 1 << (self.bits - 1) if self.symmetric else None
        return Fit(Grid(*GridSearch(masked, weight, steps, middle).run()))

    def grid(self, low: Tensor, high: Tensor) -> Grid:
        """The grid that covers `low` to `high`, both `[..., rows]`."""
        if self.symmetric:
            half = 1 << (self.bits - 1)
            scale = round_to_fp16(torch.maximum(high, -low) / (half - 1))
            return Grid(scale, torch.full_like(scale, half))
        steps = (1 << self.bits) - 1
        scale = round_to_fp16((high - low) / steps)
        zero = -low / _replace_zero_scales(scale)
        return Grid(scale, round_to_fp16(zero) if self.zero == "real" else torch.round(zero).clamp(0, steps))

    def encode(self, w: Tensor, params: Grid, columns: slice) -> Tensor:
        """round(w / scale) + zero, clamped to the code range; parameters `[..., rows]` give codes `[..., rows, cols]`."""
        scale, zero = params.scale[..., None], params.zero[..., None]
        steps = w / _replace_zero_scales(scale)
        codes = steps.add_(zero).round_() if self.zero == "real" else steps.round_().add_(zero)
        return codes.clamp_(0, (1 << self.bits) - 1).to(torch.uint8)

    def decode(self, codes: Tensor, params: Grid, columns: slice) -> Tensor:
        """scale · (code − zero)."""
        return params.scale[..., None] * (codes - params.zero[..., None])

    def pack(self, codes: Tensor, params: list[Grid], mask: Tensor | None, shape: tuple[int, int]) -> Packed:
        """Format `uniform`."""
        stored = codes if mask is None else codes[mask]
        tensors = {"codes": bitpack.pack(stored, self.bits), "scale": stack_groups([grid.scale for grid in params]).half()}
        zero = stack_groups([grid.zero for grid in params])
        if self.zero == "real":
            tensors["offset"] = zero.half()
        elif not self.symmetric:
            tensors["zero"] = bitpack.pack(zero, self.bits)
        return Packed("uniform", *shape, tensors, {"bits": self.bits, "span": self.span(shape[1])})


def _replace_zero_scales(scale: Tensor) -> Tensor:
    """The scale, with 1 where it is 0 (a group of zeros, or smaller than fp16 can say): everything rounds to code zero."""
    return torch.where(scale == 0, torch.ones_like(scale), scale)
