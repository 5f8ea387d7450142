"""Coder `binary-factors`: a whole matrix as the product of two thin sign matrices, with a rank that meets the bit budget."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from workbench.jobs import run_steps
from workbench.kernels.packing import bitpack
from workbench.kernels.packing.packed import Packed
from workbench.quantizers.coders.fitting import admm_factors
from workbench.quantizers.coders.fitting.admm_factors import SignFactors, Target
from workbench.quantizers.coders.fitting.sign_planes import PlaneScales, copy_watched_rows
from workbench.quantizers.contract import Fit, UnsharedCoder
from workbench.recipe import setting
from workbench.registry import register

MAX_CHECKS = 10  # times that ADMM is stopped to see what its signs are worth
LARGE = 800  # from this rank on whole bytes, which the kernels read, cost less than 1 % of it
FACTOR_STARTS = {"random": admm_factors.draw_random_start, "singular": admm_factors.compute_singular_start}


@register("coder", "binary-factors")
@dataclass(frozen=True)
class BinaryFactors(UnsharedCoder[SignFactors]):
    """W ≈ diag(row) · left · diag(middle) · right · diag(column), signs in both factors, of the rank that `bits` pay for.

    Factors by ADMM as in NanoQuant (arXiv 2602.06694), here under the whole second moment; with `sweeps` 0 and the singular
    start, the dual SVID of LittleBit (arXiv 2506.13771). All columns are coded at once, so no error is left to be fed on.
    `bits` count everything that is stored; a matrix too small for them gets rank 1.

    At equal stored bits none of these paid on the built-in model's layers: a magnitude for each rank (`middle`), a second pair of
    factors for what the first leaves, a low-rank correction; and a random start ends where a singular one does.
    """

    full_mask_only: ClassVar[bool] = True
    bits: float = setting(0.8, "stored bits per weight, including all magnitudes", low=0.05, high=4.0)
    sweeps: int = setting(200, "sweeps of ADMM; 0 takes the initial signs", low=0, high=1000)
    start: str = setting(
        "random", "initialization of ADMM; singular: rank at most the smaller side", choices=tuple(FACTOR_STARTS)
    )
    metric: str = setting("moment", "strength of the weighting by the second moment", choices=("moment", "diagonal"))
    middle: bool = setting(False, "also store a magnitude for each rank")

    @property
    def nominal_bits(self) -> float:
        """As wanted."""
        return self.bits

    def span(self, cols: int) -> int:
        """The whole row."""
        return cols

    def step(self, cols: int) -> int:
        """All columns at once."""
        return cols

    def rank(self, rows: int, cols: int) -> int:
        """The largest rank whose stored bits are at most those wanted, at least 1; whole bytes where they hardly matter."""
        sides, padding = 16 * (rows + cols), 2 * 7  # both streams end on a whole byte
        bits_per_rank = rows + cols + (16 if self.middle else 0)
        rank = int((self.bits * rows * cols - sides - padding) // bits_per_rank)
        if self.start == "singular":
            rank = min(rank, rows, cols)
        return max(1, rank if rank < LARGE else rank - rank % 8)

    def fit(self, w: Tensor, mask: Tensor, shared: None, moment: Tensor | None) -> Fit[SignFactors]:
        """Signs by ADMM, magnitudes by least squares."""
        return run_steps(self.fit_steps(w, mask, shared, moment))

    def fit_steps(self, w: Tensor, mask: Tensor, shared: None, moment: Tensor | None) -> Generator[float, None, Fit[SignFactors]]:
        """The same, telling every sweep of ADMM."""
        return self._search_steps(w, moment, None)

    def fit_weighted_steps(
        self, w: Tensor, mask: Tensor, shared: None, moment: Tensor, rows: Tensor
    ) -> Generator[float, None, Fit[SignFactors]]:
        """The same where rows are weighted, as NanoQuant does by gradients: all rows share the right factor."""
        return self._search_steps(w, moment, rows)

    def _search_steps(self, w: Tensor, moment: Tensor | None, rows: Tensor | None) -> Generator[float, None, Fit[SignFactors]]:
        rank = self.rank(*w.shape)
        if not w.any():
            return Fit(_make_zero_parameters(w, rank, middle=self.middle))
        target = Target.from_weights(w, moment, diagonal=self.metric == "diagonal", rows=rows)
        size = target.size
        tried, errors = list[SignFactors](), list[float]()
        for share, candidate in self.candidates(target, rank):
            yield share
            if candidate is None:
                continue
            params, error = admm_factors.settle(target, admm_factors.build_parameters(*candidate, middle=self.middle))
            if not errors or size * error < errors[-1]:
                tried.append(admm_factors.convert_to_stored(target, params))
                errors.append(size * error)
        path = (copy_watched_rows(PlaneScales(params.row[None])) for params in tried)
        return Fit(tried[-1], tuple(errors), tuple(path))

    def candidates(self, target: Target, rank: int) -> Iterator[tuple[float, tuple[Tensor, Tensor] | None]]:
        """How far the search is, and at a few points and its end (or the start alone) real factors whose signs to look at."""
        start = FACTOR_STARTS[self.start](target, rank)
        if self.sweeps == 0:
            yield 1.0, start
        every = -(-self.sweeps // MAX_CHECKS)
        for sweep, candidate in enumerate(admm_factors.search(target, *start, self.sweeps, middle=self.middle), 1):
            yield sweep / self.sweeps, candidate if sweep % every == 0 or sweep == self.sweeps else None

    def encode(self, w: Tensor, params: SignFactors, columns: slice) -> Tensor:
        """The left signs, uint8 `[rows, 1, r]`; they were found together with the right ones, for the same `w`."""
        return (params.left > 0)[:, None].to(torch.uint8)

    def decode(self, codes: Tensor, params: SignFactors, columns: slice) -> Tensor:
        """The product."""
        return admm_factors.multiply_factors(replace(params, left=codes[:, 0].float() * 2 - 1))

    def pack(self, codes: Tensor, params: list[SignFactors], mask: Tensor | None, shape: tuple[int, int]) -> Packed:
        """Format `binary-factors`."""
        (only,) = params
        tensors = {"left": bitpack.pack(codes, 1), "right": bitpack.pack(only.right > 0, 1)}
        tensors |= {"row": only.row.half(), "column": only.column.half()}
        if only.middle is not None:
            tensors["middle"] = only.middle.half()
        return Packed("binary-factors", *shape, tensors, {"rank": codes.shape[-1]})


def _make_zero_parameters(w: Tensor, rank: int, *, middle: bool) -> SignFactors:
    """The parameters of a matrix of zeros."""
    rows, cols = w.shape
    signs = torch.ones(rows, rank), torch.ones(rank, cols)
    return SignFactors(*signs, torch.zeros(rows), torch.zeros(cols), torch.zeros(rank) if middle else None)
