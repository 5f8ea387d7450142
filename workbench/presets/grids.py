"""Presets `rtn`, `gptq` and `range-mixed`: integers on a regular grid, rounded to nearest or with error feedback."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from workbench.part_settings import make_group_setting, make_zero_setting
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

if TYPE_CHECKING:
    from workbench.quantizers.contract import Coder

# The search is the default: at 2 bits (groups of 64) feedback cannot repair what a grid over the whole range loses. On a Llama of
# 260 thousand weights GPTQ then ended above RTN (perplexity 575 against 386; with the search 48 against 131).
CLIPS = ("none", "mse", "moment")


@register("preset", "rtn")
@dataclass(frozen=True)
class RoundToNearest(Preset):
    """Round to nearest: the baseline of every paper."""

    title: ClassVar[str] = "Round to nearest"
    family: ClassVar[str] = "round to nearest"
    summary: ClassVar[str] = "Rounds every weight to the nearest level of a uniform grid, one grid per group."
    default_bits: ClassVar[float] = 4.0
    calibrated: ClassVar[bool] = False
    source: ClassVar[str] = "the common baseline"
    note: ClassVar[str] = "with a searched grid; clip='none' is the min–max baseline of most papers"

    bits: int = setting(4, "bits per code", low=1, high=8)
    group: int = make_group_setting(128)
    symmetric: bool = setting(False, "symmetric grid around zero, without a stored zero point")
    clip: str = setting(
        "mse", "search for the grid with the lowest error, unweighted or weighted by the second moment", choices=CLIPS
    )
    zero: str = make_zero_setting()

    def build(self) -> Recipe:
        """Nearest codes on a uniform grid."""
        return compose(_make_uniform_coder(self))


@register("preset", "gptq")
@dataclass(frozen=True)
class Gptq(Preset):
    """GPTQ: column by column, the rounding error moves to the columns not yet rounded."""

    title: ClassVar[str] = "GPTQ"
    family: ClassVar[str] = "compensation"
    summary: ClassVar[str] = "Rounds column by column and lets the columns that follow make up for each rounding error."
    default_bits: ClassVar[float] = 4.0
    calibrated: ClassVar[bool] = True
    source: ClassVar[str] = "GPTQ, arXiv 2210.17323"
    note: ClassVar[str] = (
        "clip='none' is the released code: min–max ranges, all fitted at the start of each batch of 128 "
        "columns. The default searches scale and zero by squared error, fitted on columns after all earlier error feedback; "
        "its output error is 0.63 of the released code's at 2 bits in groups of 64, 0.84 at 3 (docs/released_methods.md). "
        "Columns without input are rounded, not set to zero; act_order without static_groups stores the order; shrinkage=0 is "
        "the paper's second moment"
    )

    bits: int = setting(4, "bits per code", low=1, high=8)
    group: int = make_group_setting(128)
    symmetric: bool = setting(False, "symmetric grid around zero, without a stored zero point")
    clip: str = setting(
        "mse", "search for the grid with the lowest error, unweighted or weighted by the second moment", choices=CLIPS
    )
    act_order: bool = setting(False, "visit columns by descending input energy")
    static_groups: bool = setting(
        False, "fit all groups on the original weights first; the order of act_order is then not stored"
    )
    damping: float = setting(0.01, "damping of the second moment, relative to its mean diagonal", low=0.0, high=10.0, rare=True)
    repair: bool = setting(
        False, "in sequential runs, also compensate the errors of earlier layers (as GPTAQ, 2504.02692)", rare=True
    )
    refinement: str = define_refinement_setting()
    model_steps: int = define_model_steps_setting()
    zero: str = make_zero_setting()

    @property
    def as_released(self) -> bool:
        """With its ranges."""
        return self.clip == "none"

    def build(self) -> Recipe:
        """Uniform grid with column feedback; act-order with moving groups is a stored permutation."""
        in_place = self.act_order and self.static_groups
        return compose(
            _make_uniform_coder(self),
            transform=make_part("transform", "permutation" if self.act_order and not in_place else "identity"),
            assignment=make_part(
                "assignment",
                "column-feedback",
                order="moment" if in_place else "given",
                fit_first=self.static_groups,
                fit_ahead=self.clip == "none",
                damping=self.damping,
                repair=self.repair,
            ),
            refinement=make_refinement_part(self.refinement, self.model_steps),
        )


def _make_uniform_coder(preset: RoundToNearest | Gptq) -> "Coder":
    """The grid with a preset's settings."""
    settings = {name: getattr(preset, name) for name in ("bits", "group", "symmetric", "clip", "zero")}
    coder: Coder = make_part("coder", "uniform", **settings)
    return coder


@register("preset", "range-mixed")
@dataclass(frozen=True)
class RangeMixed(Preset):
    """Groups of a wide range at more bits, all others at few."""

    title: ClassVar[str] = "Mixed by range"
    family: ClassVar[str] = "round to nearest"
    summary: ClassVar[str] = "Rounds to nearest, with more bits for the groups of weights that spread widest."
    default_bits: ClassVar[float] = 2.5
    calibrated: ClassVar[bool] = False
    source: ClassVar[str] = "Fast 2-bit LLM inference, arXiv 2311.16442"
    note: ClassVar[str] = (
        "groups are sorted over the whole matrix by max − min and rounded to nearest; both grids store a scale for every group, "
        "though each group uses one of them, and the paper's sparse outliers and second-level scales are left out"
    )

    share: float = setting(0.25, "share of groups with more bits", low=0.0, high=1.0)
    group: int = make_group_setting(64)
    low: int = setting(2, "bits per code in most groups", low=1, high=8)
    high: int = setting(4, "bits per code in the widest groups", low=1, high=8)
    clip: str = setting(
        "mse", "search for the grid with the lowest error, unweighted or weighted by the second moment", choices=CLIPS
    )

    def build(self) -> Recipe:
        """Two grids, one for each kind of group."""
        grids = (make_part("coder", "uniform", bits=bits, group=self.group, clip=self.clip) for bits in (self.low, self.high))
        return compose(*grids, split=make_part("split", "widest-groups", share=self.share, group=self.group))
