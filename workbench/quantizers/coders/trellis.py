"""Coder `trellis`: weights are the values of a path through states, with a few bits per step and no stored codebook."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from workbench.errors import RecipeError
from workbench.kernels.packing import bitpack, trellis_code
from workbench.kernels.packing.packed import Packed
from workbench.kernels.search import viterbi
from workbench.part_settings import make_group_setting
from workbench.quantizers.coders.fitting import sign_planes
from workbench.quantizers.coders.fitting.column_groups import compute_group_span
from workbench.quantizers.coders.fitting.sign_planes import PlaneScales
from workbench.quantizers.coders.vector_codebook import compute_row_rms
from workbench.quantizers.contract import Fit, UnsharedCoder
from workbench.quantizers.storage_rounding import round_to_fp16
from workbench.recipe import setting
from workbench.registry import register


@register("coder", "trellis")
@dataclass(frozen=True)
class Trellis(UnsharedCoder[PlaneScales]):
    """value = scale · values(state): `bits` more bits of the state for each row of `length` neighbouring columns.

    Trellis-coded quantization with the bitshift trellis of QTIP (arXiv 2406.11235), which sends a path through tiles of 16 × 16
    weights and feeds errors back from 16 columns to the next. Here a path runs down the rows of one step of columns, so errors
    move on after every step as in GPTQ, and the best path weighs rows by their scales. `rescale` solves the scales again for
    the final codes, under the second moment where there is one.
    """

    full_mask_only: ClassVar[bool] = True
    bits: int = setting(4, "stored bits per step", low=1, high=10)
    length: int = setting(5, "neighbouring columns per step", low=1, high=16)
    state: int = setting(12, "bits per state; each additional bit doubles the time and slightly lowers the error", low=6, high=16)
    group: int = make_group_setting(0)
    rescale: bool = setting(True, "refit the scales to the final codes")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.state < self.bits:
            raise RecipeError(
                f"coder 'trellis': a state of {self.state} bits cannot hold a step of {self.bits}; use state={self.bits} or more."
            )

    @property
    def nominal_bits(self) -> float:
        """Bits of a step over its columns."""
        return self.bits / self.length

    def span(self, cols: int) -> int:
        """One group, or the row."""
        return compute_group_span(self.group, cols, self.length)

    def step(self, cols: int) -> int:
        """The columns of one step."""
        return self.length

    def remembered(self, rows: int) -> int:
        """Bits of a state where rings have `rows` steps: at most half of the ring, so that its ends can meet."""
        return max(min(self.state, self.bits * rows // 2), self.bits)

    def fit(self, w: Tensor, mask: Tensor, shared: None, moment: Tensor | None) -> Fit[PlaneScales]:
        """Scales alone: what the best code of this rate has for normal weights, √(1 − 4^−rate) of the row's size."""
        return Fit(PlaneScales(round_to_fp16(compute_row_rms(w) * (1 - 4**-self.nominal_bits) ** 0.5).mT))

    def encode(self, w: Tensor, params: PlaneScales, columns: slice) -> Tensor:
        """The path's bits, `[rows, ceil(k/length)]`; a step past the last column looks at real columns only."""
        return viterbi.find_nearest_codes(w, params.scale[0], self.bits, self.length, self.remembered(len(w)))

    def encode_under(self, metric: Tensor, w: Tensor, params: PlaneScales, columns: slice) -> Tensor:
        """The bits of the path that costs least. It runs over all rows: under the mean metric where groups have their own."""
        metric = metric if metric.ndim == 2 else metric.mean(0)
        words, scale, pieces = trellis_code.compute_state_values(self.remembered(len(w)), self.length), params.scale[0], []
        for start in range(0, w.shape[1], self.length):
            block = slice(start, min(start + self.length, w.shape[1]))
            root = torch.linalg.cholesky(metric[block, block]).to(w.dtype)
            y, targets = (w[:, block] @ root)[:, None], words[:, : block.stop - start] @ root
            pieces.append(viterbi.search_scaled(y, scale, targets, self.bits))
        return torch.cat(pieces, 1)

    def words(self, codes: Tensor, cols: int) -> Tensor:
        """values(state), `[1, rows, cols]`."""
        state = self.remembered(len(codes))
        decoded_words = trellis_code.compute_state_values(state, self.length)[
            trellis_code.compute_states(codes, self.bits, state)
        ]
        return decoded_words.view(len(codes), -1)[None, :, :cols]

    def decode(self, codes: Tensor, params: PlaneScales, columns: slice) -> Tensor:
        """scale · values(state)."""
        return sign_planes.sum_planes(self.words(codes, columns.stop - columns.start), params, columns)

    def refit(
        self, target: Tensor, codes: Tensor, params: list[PlaneScales], mask: Tensor, moment: Tensor | None
    ) -> list[PlaneScales]:
        """Scales by least squares, unless `rescale` is off."""
        if not self.rescale:
            return params
        cols = mask.shape[1]
        return sign_planes.refit(target, self.words(codes, cols), params, self.span(cols), mask, moment)

    def pack(self, codes: Tensor, params: list[PlaneScales], mask: Tensor | None, shape: tuple[int, int]) -> Packed:
        """Format `trellis`."""
        tensors = {"path": bitpack.pack(codes, self.bits), "scale": sign_planes.pack_scale_tensors(params)["scale"][0]}
        state = self.remembered(shape[0])
        facts = {"bits": self.bits, "length": self.length, "state": state, "span": self.span(shape[1])}
        return Packed("trellis", *shape, tensors, facts)
