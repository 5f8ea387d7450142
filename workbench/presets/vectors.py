"""Preset `gptvq`: vectors of weights looked up in a real-valued codebook, with error feedback."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.errors import RecipeError
from workbench.presets.preset import (
    Preset,
    compose,
    define_model_steps_setting,
    define_refinement_setting,
    make_part,
    make_refinement_part,
)
from workbench.recipe import Recipe, setting
from workbench.registry import register

VECTOR_LENGTHS = range(1, 17)  # weights a codeword may stand for
MAX_CHOSEN_INDEX_BITS = 10  # bits of the longest index that is chosen here
CLOSE = 0.005  # how far k/v may be from the bits that were asked for


@register("preset", "gptvq")
@dataclass(frozen=True)
class Gptvq(Preset):
    """Vector by vector the nearest codeword, the error moves to the columns not yet coded; any rate from 0.3 to 4 bits.

    The real-valued competitor of `btc` at the same rate and with the same feedback.
    """

    title: ClassVar[str] = "GPTVQ"
    family: ClassVar[str] = "codebook"
    summary: ClassVar[str] = "Replaces short vectors of weights by the nearest entry of a codebook of numbers."
    default_bits: ClassVar[float] = 0.8
    calibrated: ClassVar[bool] = True
    source: ClassVar[str] = "GPTVQ, arXiv 2402.15319"
    note: ClassVar[str] = (
        "one fp16 codebook for the model (or projection, matrix) and a scale per row, where the paper has an 8-bit codebook for "
        "each part of a matrix and block-wise scales; plain k-means instead of EM under the second moment, no update of the "
        "codebook afterwards. A model of a few million weights is too small for more than one codebook"
    )

    bits: float = setting(0.8, "nominal bits per weight: index bits divided by the codeword length", low=0.3, high=4.0)
    scope: str = setting("model", "which layers share a codebook", choices=("matrix", "projection", "model"))
    repair: bool = setting(True, "in sequential runs, also compensate the errors of earlier layers", rare=True)
    compensation: bool = setting(True, "error feedback from each codeword to later columns (needs calibration)")
    refinement: str = define_refinement_setting()
    model_steps: int = define_model_steps_setting()

    def build(self) -> Recipe:
        """Codewords, with column feedback."""
        length, entries = choose_vector_shape(self.bits)
        assignment = make_part("assignment", "column-feedback", repair=self.repair) if self.compensation else None
        settings = {"length": length, "entries": entries, "scope": self.scope}
        coder = make_part("coder", "vector-codebook", **settings)
        return compose(coder, assignment=assignment, refinement=make_refinement_part(self.refinement, self.model_steps))


def choose_vector_shape(bits: float) -> tuple[int, int]:
    """(v, 2^k): the longest codewords of at most 2^10 whose k/v is within 0.005 of `bits`; RecipeError names the nearest."""
    shapes = [(v, k) for v in reversed(VECTOR_LENGTHS) for k in range(MAX_CHOSEN_INDEX_BITS, 0, -1)]
    for v, k in shapes:
        if abs(k / v - bits) <= CLOSE:
            return v, 1 << k
    near = sorted({k / v for v, k in shapes}, key=lambda rate: abs(rate - bits))
    tried = f"1 to {VECTOR_LENGTHS[-1]} weights with at most 2^{MAX_CHOSEN_INDEX_BITS} entries"
    raise RecipeError(f"preset 'gptvq': no codebook of {tried} has {bits} bits; use {near[0]:.4g} or {near[1]:.4g}.")
