"""Preset `qtip`: weights as the values of a path through a trellis, with error feedback."""

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

STEP_SHAPES = [(k, v) for v in range(1, 17) for k in range(2, 11)]  # bits and columns of a step; one bit takes four times as long
EVERY = 4  # steps of refinement from one search for paths to the next: a search takes longer than a step
CLOSE = 0.005  # how far k/v may be from the bits that were asked for


@register("preset", "qtip")
@dataclass(frozen=True)
class Qtip(Preset):
    """A path of k bits for every V columns, its error moved to later columns: near the bound at any rate, no codebook."""

    title: ClassVar[str] = "QTIP"
    family: ClassVar[str] = "trellis and parity codes"
    summary: ClassVar[str] = "Codes weights as a path through a trellis, which needs no codebook and fits any bit rate."
    default_bits: ClassVar[float] = 0.8
    calibrated: ClassVar[bool] = True
    source: ClassVar[str] = "QTIP, arXiv 2406.11235"
    note: ClassVar[str] = (
        "the paper's ring of 256 weights is a tile of 16 × 16, with error feedback after 16 columns; here a ring runs down all "
        "rows of a step's columns, with error feedback after each step. States of 12 bits where the paper has 16, another hash, "
        "a scale per row instead of one for the matrix, the input's side of its Hadamard transforms only; any rate, not whole "
        "bits; refining codes gains little over refining norms, because a path that changes no longer fits the earlier errors"
    )

    bits: float = setting(0.8, "nominal bits per weight: k bits for every V columns", low=0.3, high=4.0)
    state: int = setting(
        12, "bits per state; each additional bit doubles the time and slightly lowers the error", low=10, high=16
    )
    hadamard: bool = setting(True, "random Hadamard transform first, so that weights are close to normally distributed")
    repair: bool = setting(True, "in sequential runs, also compensate the errors of earlier layers", rare=True)
    compensation: bool = setting(True, "error feedback from each step to later columns (needs calibration)")
    refinement: str = define_refinement_setting()
    model_steps: int = define_model_steps_setting()

    def build(self) -> Recipe:
        """Paths down the rows, with column feedback."""
        bits, length = choose_step_shape(self.bits)
        return compose(
            make_part("coder", "trellis", bits=bits, length=length, state=self.state),
            transform=make_part("transform", "hadamard") if self.hadamard else None,
            assignment=make_part("assignment", "column-feedback", repair=self.repair) if self.compensation else None,
            refinement=make_refinement_part(self.refinement, self.model_steps, every=EVERY),
        )


def choose_step_shape(bits: float) -> tuple[int, int]:
    """(k, V): the shortest step of 2 to 10 bits with k/V within 0.005 of `bits`; RecipeError names the nearest."""
    for k, v in STEP_SHAPES:
        if abs(k / v - bits) <= CLOSE:
            return k, v
    near = sorted({k / v for k, v in STEP_SHAPES}, key=lambda rate: abs(rate - bits))
    tried = "2 to 10 bits and 1 to 16 columns"
    raise RecipeError(f"preset 'qtip': no step of {tried} has {bits} bits per weight; use {near[0]:.4g} or {near[1]:.4g}.")
