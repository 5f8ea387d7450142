"""Preset `none`: nothing is quantized."""

from dataclasses import dataclass
from typing import ClassVar

from workbench.presets.preset import Preset, compose, make_part
from workbench.recipe import Recipe
from workbench.registry import register


@register("preset", "none")
@dataclass(frozen=True)
class NoQuantization(Preset):
    """Every weight as it is: the baseline that everything else is compared with."""

    title: ClassVar[str] = "Original weights"
    family: ClassVar[str] = "original"
    summary: ClassVar[str] = "Keeps every weight as it is, as the baseline for all others."
    default_bits: ClassVar[float] = 16.0
    calibrated: ClassVar[bool] = False
    source: ClassVar[str] = "the checkpoint"
    note: ClassVar[str] = "changes nothing; stores the narrowest of fp16, bf16 and fp32 that holds every weight exactly"

    def build(self) -> Recipe:
        """Keep."""
        return compose(make_part("coder", "keep", dtype="exact"))
