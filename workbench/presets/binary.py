"""Preset `binary`: signs and scales, from closed form to alternating refined binarization."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.part_settings import SCALES, make_group_setting
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


@register("preset", "binary")
@dataclass(frozen=True)
class Binary(Preset):
    """One or two sign planes. `sweeps=0` is plain signs, more is ARB; `scales="row-column", mean=False` is ARB-RC."""

    title: ClassVar[str] = "Binary (ARB)"
    family: ClassVar[str] = "signs"
    summary: ClassVar[str] = "Stores only the sign of each weight, with scales that are refined in turns with the signs."
    default_bits: ClassVar[float] = 1.0
    calibrated: ClassVar[bool] = False
    source: ClassVar[str] = "XNOR-Net, arXiv 1603.05279; ARB-LLM, arXiv 2410.03129"
    note: ClassVar[str] = (
        "the binarizer of ARB-LLM on the whole matrix, without its salient columns and magnitude groups; mean and scales are "
        "solved jointly, and refitted to the final signs, under the second moment if calibrated. Nominal 1 bit leaves out "
        "scales and means: 1.01 stored at 4,096 columns, 1.25 with groups of 128"
    )

    planes: int = setting(1, "sign planes, one bit per weight each", low=1, high=2)
    scales: str = setting("row", "granularity of the scales", choices=SCALES)
    group: int = make_group_setting(128)
    mean: bool = setting(True, "also store a mean with each scale (ARB-RC has none)")
    sweeps: int = setting(15, "alternating sweeps; 0 is the closed form", low=0, high=100)
    compensation: bool = setting(False, "error feedback from each block to later columns (needs calibration)")
    block: int = setting(128, "columns per block", low=1, high=65536, rare=True)
    refinement: str = define_refinement_setting()
    model_steps: int = define_model_steps_setting()

    def build(self) -> Recipe:
        """Sign planes, with block feedback if wanted."""
        coder = make_part(
            "coder", "sign", planes=self.planes, scales=self.scales, group=self.group, mean=self.mean, sweeps=self.sweeps
        )
        assignment = make_part("assignment", "block-feedback", block=self.block) if self.compensation else None
        return compose(coder, assignment=assignment, refinement=make_refinement_part(self.refinement, self.model_steps))
