"""Presets `binary-factors`, `nanoquant` and `littlebit`: products of two thin sign matrices."""

from dataclasses import dataclass
from typing import ClassVar

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

LOW_RANK_RATES = (0.5, 1.0, 2.0)  # above two bits a factor's rank exceeds that of most matrices


@register("preset", "binary-factors")
@dataclass(frozen=True)
class BinaryFactors(Preset):
    """Binary factors found by ADMM under the whole second moment of a layer's input, aiming at its original output."""

    title: ClassVar[str] = "Binary factors"
    family: ClassVar[str] = "low rank"
    summary: ClassVar[str] = "Writes the matrix as a product of two thin sign matrices that keep the layer's output."
    default_bits: ClassVar[float] = 0.8
    calibrated: ClassVar[bool] = True
    rates: ClassVar[tuple[float, ...]] = LOW_RANK_RATES
    source: ClassVar[str] = "this project; after NanoQuant, arXiv 2602.06694, and DBF, arXiv 2505.11076"
    note: ClassVar[str] = (
        "the papers weight rows and columns separately; here an error is weighted by its effect on the layer's output on the "
        "calibration text; no training, no magnitudes for ranks"
    )

    bits: float = setting(0.8, "stored bits per weight, including all magnitudes", low=0.05, high=4.0)
    sweeps: int = setting(200, "sweeps of ADMM; more sweeps are slower and more accurate", low=1, high=1000)
    compensation: bool = setting(True, "find factors under the second moment (needs calibration)")
    repair: bool = setting(True, "in sequential runs, also compensate the errors of earlier layers", rare=True)
    refinement: str = define_refinement_setting()
    model_steps: int = define_model_steps_setting()

    def build(self) -> Recipe:
        """One coder for the whole matrix; the assignment has nothing to feed on and only says what to aim at."""
        assignment = make_part("assignment", "block-feedback", repair=self.repair) if self.compensation else None
        coder = make_part("coder", "binary-factors", bits=self.bits, sweeps=self.sweeps)
        return compose(coder, assignment=assignment, refinement=make_refinement_part(self.refinement, self.model_steps))


@register("preset", "nanoquant")
@dataclass(frozen=True)
class NanoQuant(Preset):
    """NanoQuant's factorization: ADMM from a random start, inputs weighted by their energy."""

    title: ClassVar[str] = "NanoQuant"
    family: ClassVar[str] = "low rank"
    summary: ClassVar[str] = "Finds two thin sign matrices by ADMM, with inputs weighted by their energy."
    default_bits: ClassVar[float] = 1.0
    calibrated: ClassVar[bool] = True
    rates: ClassVar[tuple[float, ...]] = LOW_RANK_RATES
    source: ClassVar[str] = "NanoQuant, arXiv 2602.06694"
    note: ClassVar[str] = (
        "as in the paper without its tuning of the model, and of blocks unless refined; inputs are weighted, outputs are not "
        "(the paper weighs them by gradients); the rank is not rounded to a multiple of 32; magnitudes by least squares"
    )

    bits: float = setting(1.0, "stored bits per weight, including all magnitudes (paper: 1, 0.8, 0.55)", low=0.05, high=4.0)
    sweeps: int = setting(400, "sweeps of ADMM (paper: 400)", low=1, high=1000)
    refinement: str = define_refinement_setting()
    model_steps: int = define_model_steps_setting()

    def build(self) -> Recipe:
        """One coder, calibrated on the diagonal of the second moment."""
        coder = make_part("coder", "binary-factors", bits=self.bits, sweeps=self.sweeps, metric="diagonal")
        return compose(
            coder,
            assignment=make_part("assignment", "block-feedback"),
            refinement=make_refinement_part(self.refinement, self.model_steps),
        )


@register("preset", "littlebit")
@dataclass(frozen=True)
class LittleBit(Preset):
    """LittleBit's starting point (dual SVID): signs of the singular vectors with magnitudes for rows, ranks and columns."""

    title: ClassVar[str] = "LittleBit"
    family: ClassVar[str] = "low rank"
    summary: ClassVar[str] = "Takes the signs of the singular vectors as two thin matrices, without the paper's training."
    default_bits: ClassVar[float] = 1.0
    calibrated: ClassVar[bool] = False
    rates: ClassVar[tuple[float, ...]] = LOW_RANK_RATES
    source: ClassVar[str] = "LittleBit, arXiv 2506.13771"
    note: ClassVar[str] = (
        "only the initialization of the paper, which relies on training signs and magnitudes on the whole model; without its "
        "second, residual path; magnitudes by least squares"
    )

    bits: float = setting(1.0, "stored bits per weight, including all magnitudes (paper: 1 down to 0.1)", low=0.05, high=2.0)
    refinement: str = define_refinement_setting()
    model_steps: int = define_model_steps_setting()

    def build(self) -> Recipe:
        """One coder, not calibrated."""
        coder = make_part("coder", "binary-factors", bits=self.bits, start="singular", sweeps=0, middle=True)
        return compose(coder, refinement=make_refinement_part(self.refinement, self.model_steps))
