"""Presets: settings of a method, and the recipe of parts that they stand for."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from workbench import registry
from workbench.part_settings import MODEL_STEPS, REFINED
from workbench.recipe import SHRINKAGE, Part, Recipe, guided_setting, setting, shrinkage_setting

if TYPE_CHECKING:  # parts are imported when the first recipe is made: presets are listed without torch
    from workbench.quantizers.contract import Activations, Assignment, Coder, Correction, Split, Transform
    from workbench.quantizers.learning.refine import Refinement

# what methods have in common, in the order in which they are shown: from the plainest to those that share most among weights
FAMILIES = (
    "original",
    "round to nearest",
    "compensation",
    "salience",
    "signs",
    "ternary",
    "codebook",
    "trellis and parity codes",
    "low rank",
)
WHOLE = {"model": "codes", "model-norms": "norms", "model-scales": "scales"}  # what is trained, of blocks and then of the model
RATES = (1.0, 2.0, 3.0, 4.0)
WHOLE_CHECKPOINT = 16.0  # nominal bits of kept weights: what almost all checkpoints store


@dataclass(frozen=True)
class Preset(Part):
    """A named method. Subclasses are frozen dataclasses of settings that register under "preset".

    `title` is the method's name as papers write it, `family` one of FAMILIES, and `summary` one sentence that says what it
    does. `default_bits` are the nominal bits of the default settings, and `calibrated` says whether those need calibration, so
    that a list of presets needs no parts. `source` is the paper with its arXiv id; `note` says what differs from the paper or
    its released code. `rates` are bits a weight at which it is compared with other methods, where it has the setting `bits`.
    """

    title: ClassVar[str]
    family: ClassVar[str]
    summary: ClassVar[str]
    default_bits: ClassVar[float]
    calibrated: ClassVar[bool]
    rates: ClassVar[tuple[float, ...]] = RATES
    source: ClassVar[str]
    note: ClassVar[str]

    shrinkage: float = shrinkage_setting()
    guided: int = guided_setting()

    def build(self) -> Recipe:
        """The parts, for these settings."""
        raise NotImplementedError

    def recipe(self) -> Recipe:
        """The parts, carrying the preset's name and the settings that are not the default."""
        changed = [(f.name, getattr(self, f.name)) for f in list_settings(type(self)) if getattr(self, f.name) != f.default]
        shrinkage = 0.0 if self.as_released and self.shrinkage == SHRINKAGE else self.shrinkage
        return dataclasses.replace(self.build(), name=self.name, settings=tuple(changed), shrinkage=shrinkage, guided=self.guided)

    @property
    def as_released(self) -> bool:
        """Whether these settings are those of the released code, which only damps: nothing is shrunk then."""
        return bool(getattr(self, "released", False))

    @property
    def nominal_bits(self) -> float:
        """Bits per weight as the paper counts them, for these settings."""
        recipe = self.build()
        shares, coders = recipe.split.shares, recipe.coders
        bits = [WHOLE_CHECKPOINT if coder.nominal_bits is None else coder.nominal_bits for coder in coders]
        return round(sum(share * part_bits for share, part_bits in zip(shares, bits, strict=True)), 6)

    @property
    def needs_calibration(self) -> bool:
        """Whether the recipe cannot run without `stats`."""
        from workbench.quantizers.pipeline import needs_moment

        return bool(needs_moment(self.build()))


def list_settings(preset: type[Any]) -> list[dataclasses.Field]:
    """The settings of a preset, its own before those that all have."""
    shared = {field.name for field in dataclasses.fields(Preset)}
    return sorted(dataclasses.fields(preset), key=lambda field: field.name in shared)


def compose(
    *coders: "Coder",
    transform: "Transform | None" = None,
    split: "Split | None" = None,
    assignment: "Assignment | None" = None,
    correction: "Correction | None" = None,
    activations: "Activations | None" = None,
    refinement: "Refinement | None" = None,
) -> Recipe:
    """A recipe in which a part that is not named does nothing."""
    return Recipe(
        transform=transform or make_part("transform", "identity"),
        split=split or make_part("split", "whole"),
        coders=coders,
        assignment=assignment or make_part("assignment", "nearest"),
        correction=correction or make_part("correction", "none"),
        activations=activations or make_part("activations", "keep"),
        refinement=refinement or make_part("refinement", "none"),
    )


def define_refinement_setting() -> Any:
    """The setting `refinement` of presets."""
    return setting(
        "none",
        "in sequential runs, train on each block's output: stored scales, also gains of norms, also codes; model: codes, then "
        "all blocks together on the whole model's predictions; model-norms and model-scales train less",
        choices=("none", *REFINED, *WHOLE),
        rare=True,
    )


def define_model_steps_setting() -> Any:
    """The setting `model_steps` of presets."""
    return setting(
        MODEL_STEPS, "with refinement=model, maximum number of steps on the whole model", low=0, high=1_000_000, rare=True
    )


def make_refinement_part(what: str, model_steps: int = MODEL_STEPS, **settings: Any) -> "Refinement":
    """The part that trains `what` of a block, or with "model" of all of them together too, or nothing."""
    part: Refinement
    if what == "none":
        part = make_part("refinement", "none")
    elif what in WHOLE:
        part = make_part("refinement", "model", what=WHOLE[what], model_steps=model_steps, **settings)
    else:
        part = make_part("refinement", "block", what=what, **settings)
    return part


def make_part(kind: str, name: str, **settings: Any) -> Any:
    """A registered part with these settings."""
    return registry.make(kind, name, **settings)
