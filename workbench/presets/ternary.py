"""Preset `ternary`: weights −1, 0 and +1 times a scale, or sums of such planes."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.part_settings import TRIT_SCALE_RULES, make_group_setting
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


@register("preset", "ternary")
@dataclass(frozen=True)
class Ternary(Preset):
    """Trits five to a byte. `planes=2` are trit planes as in PTQTP, `rule="absmean", sweeps=0` is BitNet b1.58's rounding."""

    title: ClassVar[str] = "Ternary"
    family: ClassVar[str] = "ternary"
    summary: ClassVar[str] = "Stores every weight as −1, 0 or +1 times a scale."
    default_bits: ClassVar[float] = 1.584963
    calibrated: ClassVar[bool] = False
    source: ClassVar[str] = "TWN, arXiv 1605.04711; BitNet b1.58, 2402.17764; PTQTP, 2509.16989"
    note: ClassVar[str] = (
        "post-training; all papers but the last train with it. The threshold is the exact optimum, which "
        "TWN approximates; planes begin with halved sizes and are refined together, where PTQTP starts from equal ones. Nominal "
        "1.58 bits are the trits' information: 1.73 stored in groups of 128, with five trits per byte and a scale"
    )

    planes: int = setting(1, "planes of trits, 1.6 stored bits per weight each", low=1, high=3)
    group: int = make_group_setting(128)
    rule: str = setting("least-squares", "initial scales: least squared error, or mean magnitude", choices=TRIT_SCALE_RULES)
    sweeps: int = setting(15, "alternating sweeps over scales and trits; 0 keeps the initial scales", low=0, high=100)
    compensation: bool = setting(False, "error feedback from each column to later columns (needs calibration)")
    refinement: str = define_refinement_setting()
    model_steps: int = define_model_steps_setting()

    def build(self) -> Recipe:
        """Trit planes, with column feedback if wanted."""
        coder = make_part("coder", "ternary", planes=self.planes, group=self.group, rule=self.rule, sweeps=self.sweeps)
        assignment = make_part("assignment", "column-feedback") if self.compensation else None
        return compose(coder, assignment=assignment, refinement=make_refinement_part(self.refinement, self.model_steps))
