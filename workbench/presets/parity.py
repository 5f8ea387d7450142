"""Preset `parity`: sub-1-bit signs by parity checks instead of a codebook."""

from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from workbench.part_settings import SCALES
from workbench.presets.btc import define_activation_setting, define_transform_setting, make_activation_part, make_transform_part
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

MAX_CODE_SIGNS = 100  # signs in which the checks of a code repeat, at most


@register("preset", "parity")
@dataclass(frozen=True)
class Parity(Preset):
    """ARB signs of which some follow from the others by parity checks; errors move on column by column.

    The rival of `btc` at the same bits: no codebook is stored or clustered, and any rate from 0.5 bits on has a code.
    """

    title: ClassVar[str] = "Parity checks"
    family: ClassVar[str] = "trellis and parity codes"
    summary: ClassVar[str] = "Stores some of the signs and lets parity checks supply the others."
    default_bits: ClassVar[float] = 0.8
    calibrated: ClassVar[bool] = True
    source: ClassVar[str] = "this project; syndrome coding: Filler, Judas and Fridrich, IEEE TIFS 2011"
    note: ClassVar[str] = (
        "not from a paper: the scales, feedback and transforms of `btc` with a linear code instead of BTC-LLM's codebook; "
        "nominal bits are the stored signs. Refinement changes signs slowly, because each flipped sign flips others in its column"
    )

    bits: float = setting(0.8, "nominal bits per weight: stored signs over signs", low=0.5, high=0.99)
    scales: str = setting("row", "granularity of the scales", choices=SCALES[:2])
    mean: bool = setting(False, "also store a mean with each scale")
    sweeps: int = setting(15, "alternating sweeps of the binarization", low=0, high=100)
    repair: bool = setting(True, "in sequential runs, also compensate the errors of earlier layers", rare=True)
    compensation: bool = setting(True, "error feedback from each column to later columns (needs calibration)")
    transform: str = define_transform_setting()
    activations: int = define_activation_setting()
    refinement: str = define_refinement_setting()
    model_steps: int = define_model_steps_setting()

    def build(self) -> Recipe:
        """Parity signs, in the basis of `transform`."""
        rate = Fraction(1 - self.bits).limit_denominator(MAX_CODE_SIGNS)
        settings = {"scales": self.scales, "mean": self.mean, "sweeps": self.sweeps}
        coder = make_part("coder", "parity-signs", length=rate.denominator, checks=rate.numerator, **settings)
        assignment = make_part("assignment", "block-feedback", block=1, repair=self.repair) if self.compensation else None
        inputs, trained = make_activation_part(self.activations), make_refinement_part(self.refinement, self.model_steps)
        return compose(
            coder, transform=make_transform_part(self.transform), assignment=assignment, activations=inputs, refinement=trained
        )
